// What the loop of trainer.h does at an evaluation: the metrics, which one is the best, samples.
#include "common/status/status.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "trainer/loop/generate.h"
#include "trainer/loop/trainer.h"

namespace hanlin {
namespace {

// The text that ids add to a prompt's.
absl::StatusOr<std::string> Continuation(const Tokenizer& tokenizer,
                                         std::span<const int32_t> prompt,
                                         std::span<const int32_t> ids) {
  ASSIGN_OR_RETURN(StreamDecoder decoder, StreamDecoder::Create(tokenizer.decoder_spec()));
  decoder.Seed(prompt);
  std::string text;
  for (const int32_t id : ids) text += decoder.Push(id);
  return text + decoder.Flush();
}

}  // namespace

absl::Status Trainer::EvaluateNow(bool* improved) {
  const bool modelscope = config_.evaluation.metric == "ppl_modelscope";
  ASSIGN_OR_RETURN(const EvaluationResult result,
                   EvaluateSamples(*model_, rules_, valid_, config_.evaluation.batch, modelscope));
  const double metric = modelscope ? result.ppl_modelscope.value_or(result.ppl) : result.ppl;
  *improved = metric < state_.best_metric;
  if (*improved) {
    state_.best_metric = metric;
    state_.best_step = state_.step;
    state_.evaluations_since_best = 0;
  } else {
    ++state_.evaluations_since_best;
  }
  patience_over_ = config_.evaluation.patience > 0 &&
                   state_.evaluations_since_best >= config_.evaluation.patience;
  if (options_.observer != nullptr) {
    options_.observer->OnEvaluation(state_.step, result, *improved);
  }
  return absl::OkStatus();
}

absl::Status Trainer::TakeSamples() {
  if (prompts_.empty()) return absl::OkStatus();
  GenerateOptions options = {.max_tokens = config_.evaluation.sample_tokens,
                             .end_token = rules_.separator,
                             .batch = config_.evaluation.batch};
  options.sampling.temperature = static_cast<float>(config_.evaluation.sample_temperature);
  options.sampling.seed = static_cast<uint64_t>(config_.seed);
  ASSIGN_OR_RETURN(const auto results, Generate(*model_, prompts_, options));
  for (size_t i = 0; i < results.size() && options_.observer != nullptr; ++i) {
    ASSIGN_OR_RETURN(const std::string text, Continuation(*tokenizer_, prompts_[i], results[i]));
    options_.observer->OnSample(state_.step, static_cast<int>(i) + 1, config_.evaluation.samples[i],
                                text);
  }
  return absl::OkStatus();
}

}  // namespace hanlin
