// Runs steps on one GPU: two may be in flight, and ids go from one to the next on the device. Also
// scores a given text with the same forward pass. Thread safety: one thread at a time.
#ifndef HANLIN_WORKER_ENGINE_CUDA_EXECUTOR_H_
#define HANLIN_WORKER_ENGINE_CUDA_EXECUTOR_H_

#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "common/threading/thread_pool.h"
#include "model/forward/cuda/cuda_model.h"
#include "worker/engine/executor.h"

namespace hanlin {

class CudaExecutor : public Executor {
 public:
  // Both must outlive the executor; the pool turns logits into scores.
  CudaExecutor(CudaGptModel* model, ThreadPool* pool) : model_(*model), pool_(*pool) {}

  absl::Status Begin(const StepPlan& plan) override;
  absl::Status Finish(StepOutput* output) override;
  int max_in_flight() const override { return CudaGptModel::kMaxInFlight; }
  absl::StatusOr<std::vector<std::optional<double>>> Score(std::span<const int32_t> ids) override;

 private:
  CudaGptModel& model_;
  ThreadPool& pool_;
  std::vector<CudaSampleRow> rows_;            // of the step being begun
  std::deque<std::vector<int32_t>> logprobs_;  // by step in flight: what each row asked for
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_CUDA_EXECUTOR_H_
