// One rank of a worker group, from a model's folder to a model that runs: joins the group, agrees
// on the size of the KV cache, loads its slice of the weights. The worker's main, `hanlin generate`
// and `hanlin score` all start here. Thread safety: none; heartbeat() may be read by any thread.
#ifndef HANLIN_WORKER_ENGINE_MODEL_RANK_H_
#define HANLIN_WORKER_ENGINE_MODEL_RANK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/socket.h"
#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"
#include "model/comm/communicator.h"
#include "model/config/config.h"
#include "model/forward/model.h"
#include "worker/engine/cuda_rank.h"
#include "worker/engine/executor.h"

namespace hanlin {

// Where a model comes from: a folder, or random weights in the shape of a preset.
struct ModelSource {
  std::string directory;  // empty with a preset; else the default model's when both are empty
  std::string preset;
};
absl::StatusOr<ModelConfig> LoadConfig(const ModelSource& source);

// Names of --dtype to the type computed in. "auto": on a GPU bf16; on a CPU fp32 for scoring and on
// processors without bf16 instructions, else bf16. INVALID_ARGUMENT for another name.
absl::StatusOr<ComputeType> ParseComputeType(std::string_view dtype, std::string_view device,
                                             bool scoring);
// "fp32" or "bf16".
std::string_view ToString(ComputeType type);

// Tokens of a step where nothing else is said: enough for products to be efficient, few enough for
// others' tokens to come soon.
inline constexpr int32_t kCpuBatchTokens = 256;
inline constexpr int32_t kCudaBatchTokens = 512;

class ModelRank {
 public:
  struct Options {
    ModelSource source;
    std::string device = "cpu";  // or "cuda"
    ComputeType type = ComputeType::kFloat32;
    int rank = 0;
    int tp = 1;
    // Where rank 0 listens for the others; unused by a group of one.
    std::string leader_address;
    // Rank 0's socket when it listens already, else it listens on leader_address.
    FileDescriptor listener;
    // Bytes of KV cache over all ranks; rank 0's counts. Unset = from the memory that is there.
    std::optional<uint64_t> kv_memory;
    int32_t max_running = 256;
    int32_t max_batch_tokens = kCudaBatchTokens;  // of a step, on a GPU
    bool batch_invariant = false;                 // on a GPU; a CPU always is
    // 0 = the processors divided among the ranks.
    int threads = 0;
    std::function<void(double)> progress;           // part of the weights that is loaded, 0..1
    std::function<void(std::string_view)> message;  // what is waited for
  };

  static absl::StatusOr<std::unique_ptr<ModelRank>> Create(Options options);

  const ModelConfig& config() const { return config_; }
  ComputeType type() const { return type_; }
  int32_t num_kv_blocks() const { return num_kv_blocks_; }
  std::atomic<uint64_t>* heartbeat() { return &heartbeat_; }

  // Rank 0: what runs steps on the group. The rank must outlive it.
  std::unique_ptr<Executor> MakeExecutor();
  // Ranks 1..: works for rank 0 until it shuts the group down (OK) or the group ends (UNAVAILABLE).
  absl::Status Follow();

  // Of a GPU; nothing on a CPU. Any thread.
  std::optional<DeviceMetrics> device_metrics() const;

 private:
  ModelRank() = default;

  absl::Status JoinGroup(const Options& options);
  absl::Status AgreeOnBlocks(const Options& options);
  absl::Status Load(const Options& options);

  ModelConfig config_;
  ComputeType type_ = ComputeType::kFloat32;
  int32_t num_kv_blocks_ = 0;
  std::atomic<uint64_t> heartbeat_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Communicator> communicator_;
  // One of them.
  std::unique_ptr<GptModel> model_;
  std::unique_ptr<CudaRank> cuda_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_MODEL_RANK_H_
