// Runs steps on a worker group's CPUs: the forward pass on all ranks, then the rows are sampled in
// parallel on the leader. Also scores a given text with the same forward pass. Thread safety: one
// thread at a time.
#ifndef HANLIN_WORKER_ENGINE_CPU_EXECUTOR_H_
#define HANLIN_WORKER_ENGINE_CPU_EXECUTOR_H_

#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "model/forward/model.h"
#include "model/forward/tp_group.h"
#include "worker/engine/executor.h"

namespace hanlin {

class CpuExecutor : public SyncExecutor {
 public:
  // All must outlive the executor; `communicator` is rank 0's.
  CpuExecutor(GptModel* model, Communicator* communicator, ThreadPool* pool);

  absl::Status Execute(const StepPlan& plan, StepOutput* output) override;
  absl::Status Ping() override { return group_.Ping(); }
  void Shutdown() override;

  absl::StatusOr<std::vector<std::optional<double>>> Score(std::span<const int32_t> ids) override;

 private:
  // Scratch of one thread.
  struct Worker {
    Sampler sampler;
    std::vector<LogitBias> bias;
  };

  void SampleOne(std::span<const float> logits, const SampleRow& row, Worker* worker,
                 SampledToken* token) const;

  GptModel& model_;
  TpGroup group_;
  ThreadPool& pool_;
  std::vector<Worker> workers_;  // one per thread of the pool
  std::vector<float> logits_;    // [rows, vocabulary]
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_CPU_EXECUTOR_H_
