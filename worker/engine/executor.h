// What runs the steps that the scheduler plans. Sampling is a part of a step, so that a device can
// keep the ids it drew: with two steps in flight the next one is planned while one runs, and says
// "what row r of the step before draws" where an id is not known yet. Implementations: CpuExecutor
// (a worker group's forward pass), CudaExecutor (a GPU), NullExecutor (no model: ids by formula).
#ifndef HANLIN_WORKER_ENGINE_EXECUTOR_H_
#define HANLIN_WORKER_ENGINE_EXECUTOR_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/sampling/sampling.h"
#include "model/forward/step.h"
#include "worker/engine/request.h"

namespace hanlin {

// One row of logits and how a token is drawn from it.
struct SampleRow {
  const ResolvedRequest* request;   // parameters
  std::span<const int32_t> ids;     // prompt and output so far, as far as it is known
  int32_t position;                 // of the token drawn: ids.size(), one more while a draw is open
  std::span<const int32_t> banned;  // ids that may not be drawn (end tokens before min_new_tokens)
};

// Everything of one step. The arrays are reused from step to step.
struct StepPlan {
  std::vector<int32_t> tokens;  // -1 - r: what row r of the step before draws
  std::vector<StepSequence> sequences;
  std::vector<int32_t> block_table;
  std::vector<int32_t> logit_rows;
  std::vector<SampleRow> samples;  // one per logit row, same order

  bool empty() const { return sequences.empty(); }
  StepBatch batch() const { return {tokens, sequences, block_table, logit_rows}; }
  void Clear();
};

struct SampledToken {
  int32_t id = 0;
  PositionLogprobs logprobs;  // when the row asked for them
};

struct StepOutput {
  std::vector<SampledToken> tokens;  // one per StepPlan::samples
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Starts a step; nothing of `plan` is needed after the return. Any error, of Finish too, means
  // that the group is gone.
  virtual absl::Status Begin(const StepPlan& plan) = 0;
  // Waits for the oldest step in flight; its tokens to `output` (resized).
  virtual absl::Status Finish(StepOutput* output) = 0;
  // Steps that may be in flight at once. Only with 2 may a plan refer to the step before.
  virtual int max_in_flight() const { return 1; }

  // Natural log-probability of each id behind those before it; the first has none. `ids` fit the
  // context and the KV cache, whose contents are overwritten. No step may be in flight.
  virtual absl::StatusOr<std::vector<std::optional<double>>> Score(std::span<const int32_t>) {
    return absl::UnimplementedError("the device cannot score");
  }

  // Called about once a second while there is nothing to do: an error means that the group is gone.
  virtual absl::Status Ping() { return absl::OkStatus(); }

  // No more steps will come.
  virtual void Shutdown() {}
};

// An executor whose steps are done when they have begun.
class SyncExecutor : public Executor {
 public:
  absl::Status Begin(const StepPlan& plan) final { return Execute(plan, &output_); }
  absl::Status Finish(StepOutput* output) final {
    std::swap(*output, output_);
    return absl::OkStatus();
  }

  // Runs one step and draws its tokens into `output` (resized).
  virtual absl::Status Execute(const StepPlan& plan, StepOutput* output) = 0;

 private:
  StepOutput output_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_EXECUTOR_H_
