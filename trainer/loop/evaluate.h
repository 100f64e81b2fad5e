// Perplexities of a set of samples. Two of them, which are not the same number:
//   ppl             exp(sum of the cross-entropies of the labels that count / their number)
//   ppl_modelscope  ModelScope's "ppl" metric: over all label positions, prompts and padding
//                   (label 0, up to sequence_length - 1) included
#ifndef HANLIN_TRAINER_LOOP_EVALUATE_H_
#define HANLIN_TRAINER_LOOP_EVALUATE_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "model/train/train_model.h"
#include "trainer/data/samples.h"
#include "trainer/metrics/text_scores.h"

namespace hanlin {

struct EvaluationResult {
  double loss = 0;  // mean over the labels that count; 0 when there are none
  double ppl = 1;
  int64_t labels = 0;
  std::optional<double> ppl_modelscope;
  std::optional<TextScores> texts;  // of generated targets
};

// Collective over the data-parallel ranks, which share the work. `batch` samples at a time, in rows
// of a multiple of `length_step` (BatchOptions). `modelscope` asks for both numbers and costs the
// padding.
absl::StatusOr<EvaluationResult> EvaluateSamples(TrainModel& model, const SampleRules& rules,
                                                 const SampleStore& samples, int64_t batch,
                                                 int64_t length_step, bool modelscope);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOOP_EVALUATE_H_
