// See cuda_executor.h.
#include "worker/engine/cuda_executor.h"

#include "common/status/status.h"
#include "kernels/sampling/cuda/sample.h"
#include "worker/engine/score.h"

namespace hanlin {

absl::Status CudaExecutor::Begin(const StepPlan& plan) {
  rows_.clear();
  std::vector<int32_t> logprobs;
  for (const SampleRow& sample : plan.samples) {
    CudaSampleRow& row = rows_.emplace_back();
    row.slot = MakeSampleSlot(sample.request->sampling);
    row.slot.logprobs = sample.request->logprobs;
    row.position = sample.position;
    row.logit_bias = sample.request->logit_bias;
    row.banned = sample.banned;
    row.ids = sample.ids;
    logprobs.push_back(sample.request->logprobs);
  }
  RETURN_IF_ERROR(model_.Begin(plan.batch(), rows_));
  logprobs_.push_back(std::move(logprobs));
  return absl::OkStatus();
}

absl::Status CudaExecutor::Finish(StepOutput* output) {
  ASSIGN_OR_RETURN(const CudaGptModel::Draws draws, model_.Finish());
  const std::vector<int32_t> asked = std::move(logprobs_.front());
  logprobs_.pop_front();
  output->tokens.resize(asked.size());
  for (size_t row = 0; row < asked.size(); ++row) {
    SampledToken& token = output->tokens[row];
    token.id = draws.ids[row];
    token.logprobs.top.clear();
    if (asked[row] < 0) continue;
    token.logprobs.token = {token.id, draws.logprobs[row]};
    const size_t first = row * kSampleMaxLogprobs;
    for (size_t i = first; i < first + static_cast<size_t>(asked[row]); ++i) {
      if (std::ssize(token.logprobs.top) == model_.config().vocab_size) break;
      token.logprobs.top.push_back({draws.top_ids[i], draws.top_logprobs[i]});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::optional<double>>> CudaExecutor::Score(
    std::span<const int32_t> ids) {
  return ScoreIds(
      ids, model_.limits(),
      [this](const StepBatch& batch, std::span<float> logits) { return model_.Run(batch, logits); },
      pool_);
}

}  // namespace hanlin
