// What runs the steps that the scheduler plans. Sampling is a part of a step, so that a device can
// keep the ids it drew. Implementations: CpuExecutor (a worker group's forward pass), NullExecutor
// (no model: ids by formula).
#ifndef HANLIN_WORKER_ENGINE_EXECUTOR_H_
#define HANLIN_WORKER_ENGINE_EXECUTOR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling/sampling.h"
#include "model/forward/step.h"
#include "worker/engine/request.h"

namespace hanlin {

// One row of logits and how a token is drawn from it.
struct SampleRow {
  const ResolvedRequest* request;  // parameters
  std::span<const int32_t>
      ids;  // prompt and output so far; the token drawn stands at position ids.size()
  std::span<const int32_t> banned;  // ids that may not be drawn (end tokens before min_new_tokens)
};

// Everything of one step. The arrays are reused from step to step.
struct StepPlan {
  std::vector<int32_t> tokens;
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

  // Runs one step and draws its tokens into `output` (resized). Any error means that the group is
  // gone.
  virtual absl::Status Execute(const StepPlan& plan, StepOutput* output) = 0;

  // Called about once a second while there is nothing to do: an error means that the group is gone.
  virtual absl::Status Ping() { return absl::OkStatus(); }

  // No more steps will come.
  virtual void Shutdown() {}
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_EXECUTOR_H_
