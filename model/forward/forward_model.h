// One rank's model, whatever it runs on: a step in, logits out. Implementations: GptModel (CPU),
// CudaGptModel.
#ifndef HANLIN_MODEL_FORWARD_FORWARD_MODEL_H_
#define HANLIN_MODEL_FORWARD_FORWARD_MODEL_H_

#include <span>

#include "absl/status/status.h"
#include "model/config/config.h"
#include "model/forward/step.h"

namespace hanlin {

class ForwardModel {
 public:
  virtual ~ForwardModel() = default;

  // What Run would say about a step and room for so many logits, without running it.
  virtual absl::Status Check(const StepBatch& batch, size_t logits) const = 0;

  // Runs one step: writes the KV cache of the new tokens, and on rank 0 logits [logit_rows,
  // vocab_size] of the wanted rows (other ranks pass an empty span). INVALID_ARGUMENT leaves the
  // model untouched; UNAVAILABLE means that the group is gone.
  virtual absl::Status Run(const StepBatch& batch, std::span<float> logits) = 0;

  virtual const ModelConfig& config() const = 0;
  virtual const StepLimits& limits() const = 0;  // what CheckStep holds a plan against
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_FORWARD_MODEL_H_
