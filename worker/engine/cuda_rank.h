// A rank whose model is on a GPU, for code that knows nothing of CUDA: no CUDA header is included
// here, and a build without CUDA has the same interface, whose Create says that it is missing.
// Thread safety: none; metrics() from any thread.
#ifndef HANLIN_WORKER_ENGINE_CUDA_RANK_H_
#define HANLIN_WORKER_ENGINE_CUDA_RANK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/engine/executor.h"

namespace hanlin {

struct DeviceMetrics {
  uint64_t memory_used = 0;  // bytes, by all processes
  uint64_t memory_total = 0;
  uint64_t graph_replays = 0;  // steps that were one graph
  uint64_t eager_passes = 0;   // passes that were launched kernel by kernel
};

class CudaRank {
 public:
  struct Options {
    const Checkpoint* checkpoint = nullptr;  // read during Create only
    ComputeType type = ComputeType::kBFloat16;
    // Bytes of KV cache at most; unset = what the device's memory holds.
    std::optional<uint64_t> kv_memory;
    int32_t max_running = 256;
    int32_t max_batch_tokens = 512;  // of a step; larger ones run in several passes
    bool batch_invariant = false;
    ThreadPool* pool = nullptr;  // for loading and scoring; must outlive the rank
    std::function<void(double)> progress;
    std::atomic<uint64_t>* heartbeat = nullptr;
  };

  // FAILED_PRECONDITION: built without CUDA, no usable device, or a library is missing.
  // RESOURCE_EXHAUSTED: the model does not fit.
  static absl::StatusOr<std::unique_ptr<CudaRank>> Create(const Options& options);
  virtual ~CudaRank() = default;

  virtual int32_t num_kv_blocks() const = 0;
  // What runs steps; the rank must outlive it.
  virtual std::unique_ptr<Executor> MakeExecutor() = 0;
  virtual DeviceMetrics metrics() const = 0;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_CUDA_RANK_H_
