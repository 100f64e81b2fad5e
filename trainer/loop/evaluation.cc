// What the loop of trainer.h does at an evaluation: the metrics, which one is the best, samples.
#include <cmath>

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

// The number that evaluation.metric names.
double Metric(const std::string& name, const EvaluationResult& result) {
  if (name == "ppl_modelscope") return result.ppl_modelscope.value_or(result.ppl);
  if (name == "ppl") return result.ppl;
  const TextScores scores = result.texts.value_or(TextScores());
  if (name == "rouge-1") return scores.rouge_1;
  if (name == "rouge-l") return scores.rouge_l;
  return name == "bleu-1" ? scores.bleu_1 : scores.bleu_4;
}

}  // namespace

// Greedy targets of the first evaluation.generate validation samples that have one.
absl::Status Trainer::ScoreTargets(EvaluationResult* result) {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<TextPair> texts;
  const auto wanted = static_cast<size_t>(config_.evaluation.generate);
  for (size_t i = 0; i < valid_.size() && prompts.size() < wanted; ++i) {
    const SampleView sample = valid_[i];
    const auto source = static_cast<int64_t>(sample.source.size());
    if (!sample.has_target || source == 0 || source >= rules_.sequence_length) continue;
    prompts.emplace_back(sample.source.begin(), sample.source.end());
    ASSIGN_OR_RETURN(std::string reference,
                     Continuation(*tokenizer_, sample.source, sample.target));
    texts.push_back({"", std::move(reference)});
  }
  if (prompts.empty()) {
    return FailedPrecondition(
        "evaluation.generate: no validation sample has a source shorter than data.sequence_length "
        "and a target");
  }
  GenerateOptions options = {.max_tokens = config_.evaluation.sample_tokens,
                             .end_token = rules_.separator,
                             .batch = config_.evaluation.batch};
  options.sampling.temperature = 0;
  ASSIGN_OR_RETURN(const auto results, Generate(*model_, prompts, options));
  for (size_t i = 0; i < results.size(); ++i) {
    ASSIGN_OR_RETURN(texts[i].generated, Continuation(*tokenizer_, prompts[i], results[i]));
  }
  result->texts = ScoreTexts(texts);
  return absl::OkStatus();
}

absl::Status Trainer::EvaluateNow(bool* improved) {
  const bool modelscope = config_.evaluation.metric == "ppl_modelscope";
  SampleRules rules = rules_;
  rules.all_labels = false;  // data.loss is about training: perplexities stay comparable
  ASSIGN_OR_RETURN(EvaluationResult result,
                   EvaluateSamples(*model_, rules, valid_, config_.evaluation.batch,
                                   LengthStep(config_), modelscope));
  if (config_.evaluation.generate > 0) RETURN_IF_ERROR(ScoreTargets(&result));
  const double metric = Metric(config_.evaluation.metric, result);
  const bool less_is_better = config_.evaluation.metric.starts_with("ppl");
  *improved = std::isfinite(metric) &&
              (state_.best_step == 0 ||
               (less_is_better ? metric < state_.best_metric : metric > state_.best_metric));
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
