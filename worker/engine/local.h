// The engine in this process: what `hanlin generate` and `hanlin score` with --model need. Loads
// configuration, weights and worker group in one call; with tp > 1 it starts the other ranks as
// hanlin-worker processes on this host and stops them in the end.
//
// Thread safety: Score is called by one thread at a time and not while the engine runs requests.
#ifndef HANLIN_WORKER_ENGINE_LOCAL_H_
#define HANLIN_WORKER_ENGINE_LOCAL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config/config.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_rank.h"

namespace hanlin {

class LocalModel {
 public:
  struct Options {
    // The model's folder; ignored when random_weights names a preset.
    std::string directory;
    std::string random_weights;
    // "cpu", "cuda", or "null": no weights, ids by formula.
    std::string device = "cpu";
    std::string dtype = "auto";
    // For score: dtype auto means fp32.
    bool scoring = false;
    int tp = 1;
    // On a GPU: an id does not depend on what else runs. A CPU is always so.
    bool batch_invariant = false;
    // Bytes of KV cache over all ranks; unset = from the memory that is there.
    std::optional<uint64_t> kv_memory;
    // Threads of this rank; 0 = the processors divided among the ranks.
    int threads = 0;
    // Part of the weights that is loaded, 0..1; what is waited for.
    std::function<void(double)> progress;
    std::function<void(std::string_view)> message;
  };

  static absl::StatusOr<std::unique_ptr<LocalModel>> Create(Options options);
  ~LocalModel();
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  const ModelConfig& config() const;
  ComputeType compute_type() const;
  // Started by the first call.
  absl::StatusOr<Engine*> engine();

  // Teacher-forced natural log-probabilities: entry i is that of ids[i] behind ids[0..i); entry 0
  // is unset. INVALID_ARGUMENT for an empty list, an id out of range or more ids than the context
  // holds. FAILED_PRECONDITION once the engine was started.
  absl::StatusOr<std::vector<std::optional<double>>> Score(std::span<const int32_t> ids);

 private:
  class Impl;
  explicit LocalModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_LOCAL_H_
