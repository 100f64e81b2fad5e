// Texts from a model in training, for samples in the log and for the metrics of generated targets.
// There is no KV cache: every token costs a pass over the row so far, which is exact, needs nothing
// that training does not have, and is cheap for what it is used for.
#ifndef HANLIN_TRAINER_LOOP_GENERATE_H_
#define HANLIN_TRAINER_LOOP_GENERATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/sampling/sampling.h"
#include "model/train/train_model.h"

namespace hanlin {

struct GenerateOptions {
  int64_t max_tokens = 64;
  int32_t end_token = 0;
  int64_t batch = 16;       // rows at a time
  SamplingParams sampling;  // `choice` is the prompt's number
};

// The ids that follow each prompt: to the end token, which is left out, to max_tokens, or to the
// model's last position. A prompt has 1 to max_positions ids. Collective: data-parallel ranks share
// the prompts, and every rank has all results.
absl::StatusOr<std::vector<std::vector<int32_t>>> Generate(
    TrainModel& model, std::span<const std::vector<int32_t>> prompts,
    const GenerateOptions& options);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOOP_GENERATE_H_
