// See evaluate.h.
#include "trainer/loop/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/status/status.h"
#include "model/train/collectives.h"
#include "trainer/data/batches.h"

namespace hanlin {

absl::StatusOr<EvaluationResult> EvaluateSamples(TrainModel& model, const SampleRules& rules,
                                                 const SampleStore& samples, int64_t batch,
                                                 int64_t length_step, bool modelscope) {
  // Neighbours in length share a batch, so little is padded.
  std::vector<uint32_t> order(samples.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return InputLength(rules, samples[a]) < InputLength(rules, samples[b]);
  });
  Communicator* const data = model.options().data;
  const auto ranks = static_cast<size_t>(data == nullptr ? 1 : data->size());
  const auto rank = static_cast<size_t>(data == nullptr ? 0 : data->rank());
  const auto step = static_cast<size_t>(batch);
  double sums[4] = {};  // counted loss, counted labels, all loss, all labels
  const BatchOptions options = {.full_length = modelscope, .length_step = length_step};
  for (size_t begin = rank * step; begin < order.size(); begin += ranks * step) {
    const auto part =
        std::span<const uint32_t>(order).subspan(begin, std::min(step, order.size() - begin));
    const TrainBatch arrays = MakeBatch(rules, options, samples, part, 1);
    std::vector<float> losses(arrays.tokens.size());
    RETURN_IF_ERROR(model.Evaluate(arrays, modelscope, losses));
    for (size_t i = 0; i < losses.size(); ++i) {
      const bool counts = arrays.weights[i] != 0;
      sums[0] += counts ? losses[i] : 0;
      sums[1] += counts ? 1 : 0;
      sums[2] += losses[i];
      sums[3] += 1;
    }
  }
  RETURN_IF_ERROR(SumOverRanks(data, sums));
  EvaluationResult result;
  result.labels = static_cast<int64_t>(sums[1]);
  result.loss = sums[1] == 0 ? 0 : sums[0] / sums[1];
  result.ppl = std::exp(result.loss);
  if (modelscope && sums[3] > 0) result.ppl_modelscope = std::exp(sums[2] / sums[3]);
  return result;
}

}  // namespace hanlin
