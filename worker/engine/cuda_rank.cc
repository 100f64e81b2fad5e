// See cuda_rank.h: the real one.
#include "worker/engine/cuda_rank.h"

#include "common/status/status.h"
#include "model/forward/cuda/cuda_model.h"
#include "worker/engine/cuda_executor.h"

namespace hanlin {
namespace {

class LoadedCudaRank final : public CudaRank {
 public:
  LoadedCudaRank(std::unique_ptr<CudaGptModel> model, ThreadPool* pool)
      : model_(std::move(model)), pool_(*pool) {}

  int32_t num_kv_blocks() const override { return model_->limits().num_blocks; }
  std::unique_ptr<Executor> MakeExecutor() override {
    return std::make_unique<CudaExecutor>(model_.get(), &pool_);
  }
  DeviceMetrics metrics() const override {
    const CudaGptModel::Metrics metrics = model_->metrics();
    return {.memory_used = metrics.memory_used,
            .memory_total = metrics.memory_total,
            .graph_replays = metrics.graph_replays,
            .eager_passes = metrics.eager_passes};
  }

 private:
  const std::unique_ptr<CudaGptModel> model_;
  ThreadPool& pool_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaRank>> CudaRank::Create(const Options& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<CudaGptModel> model,
                   CudaGptModel::Create({.checkpoint = options.checkpoint,
                                         .compute_type = options.type,
                                         .pool = options.pool,
                                         .max_kv_bytes = options.kv_memory,
                                         .max_sequences = options.max_running,
                                         .max_tokens_per_pass = options.max_batch_tokens,
                                         .batch_invariant = options.batch_invariant,
                                         .progress = options.progress,
                                         .heartbeat = options.heartbeat}));
  return std::make_unique<LoadedCudaRank>(std::move(model), options.pool);
}

}  // namespace hanlin
