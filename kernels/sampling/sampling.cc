// The steps of sampling.h in their order; vector loops are in sampling_simd.cc, selection in
// candidates.cc.
#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/isa.h"
#include "kernels/sampling/philox.h"

namespace hanlin {
namespace {

constexpr float kGreedyTemperature =
    1e-5f;                            // scaled logits would lose the noise to rounding, or overflow
constexpr int32_t kOccurs = 1 << 30;  // in counts_: in the prompt; the bits below count the output

const SamplingKernels& Kernels() { return HANLIN_ACTIVE_KERNELS(kSamplingKernels); }

bool IsGreedy(const SamplingParams& params) { return params.temperature <= kGreedyTemperature; }

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

size_t GroupsOf(size_t vocabulary) { return (vocabulary + kLogitGroup - 1) / kLogitGroup; }

double SumOfExponentials(const std::vector<Candidate>& candidates, float max) {
  double sum = 0.0;
  for (const Candidate& c : candidates) {
    sum += std::exp(static_cast<double>(c.logit) - static_cast<double>(max));
  }
  return sum;
}

}  // namespace

float Sampler::Adjust(std::span<const float> logits, const SamplingParams& params,
                      const SamplingContext& context) {
  const auto size = static_cast<int64_t>(logits.size());
  adjusted_.resize(logits.size());
  const float* source = logits.data();
  if (!context.logit_bias.empty() || HasPenalties(params)) {
    std::copy(logits.begin(), logits.end(), adjusted_.begin());
    for (const LogitBias& bias : context.logit_bias) {
      if (bias.id >= 0 && bias.id < size) adjusted_[bias.id] += bias.bias;
    }
    if (HasPenalties(params)) ApplyPenalties(params, context);
    source = adjusted_.data();
  }
  Kernels().scale(source, size, IsGreedy(params) ? 1.0f : 1.0f / params.temperature,
                  adjusted_.data());
  maxima_.resize(GroupsOf(logits.size()));
  Kernels().group_max(adjusted_.data(), size, maxima_.data());
  return *std::max_element(maxima_.begin(), maxima_.end());
}

void Sampler::ApplyPenalties(const SamplingParams& params, const SamplingContext& context) {
  const auto size = static_cast<int64_t>(adjusted_.size());
  counts_.resize(adjusted_.size(), 0);
  for (int32_t id : context.prompt_ids) {
    if (id >= 0 && id < size) counts_[id] |= kOccurs;
  }
  for (int32_t id : context.output_ids) {
    if (id >= 0 && id < size) ++counts_[id];
  }
  const auto apply = [&](int32_t id) {
    if (id < 0 || id >= size || counts_[id] == 0) return;
    const int32_t in_output = counts_[id] & (kOccurs - 1);
    counts_[id] = 0;  // once per id, and clean for the next call
    float& logit = adjusted_[id];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (in_output > 0) {
      logit -= params.frequency_penalty * static_cast<float>(in_output) + params.presence_penalty;
    }
  };
  std::for_each(context.prompt_ids.begin(), context.prompt_ids.end(), apply);
  std::for_each(context.output_ids.begin(), context.output_ids.end(), apply);
}

Sampler::Kept Sampler::Filter(const SamplingParams& params, float max) {
  const LogitView view{adjusted_, maxima_};
  Kept kept = Kept::kAll;
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < adjusted_.size()) {
    CollectTopK(view, params.top_k, candidates_);
    kept = Kept::kCandidates;
    if (params.top_p < 1.0f) {
      SortByLogit(candidates_);
      CutTopP(params.top_p, max, SumOfExponentials(candidates_, max), candidates_);
    }
  } else if (params.top_p < 1.0f) {
    const double total =
        Kernels().sum_exp(adjusted_.data(), static_cast<int64_t>(adjusted_.size()), max);
    kept = Kept::kCandidates;
    // Most distributions reach top_p within a few hundred ids; widen until this one does.
    for (size_t k = 256;; k *= 4) {
      CollectTopK(view, std::min(k, adjusted_.size()), candidates_);
      const bool is_all = k >= adjusted_.size();
      if (!is_all && SumOfExponentials(candidates_, max) <= params.top_p * total) continue;
      SortByLogit(candidates_);
      if (CutTopP(params.top_p, max, total, candidates_) || is_all) break;
    }
  }
  if (params.min_p > 0.0f) {
    const float threshold = max + std::log(params.min_p);
    if (kept == Kept::kAll) {
      CollectAtLeast(view, threshold, candidates_);
      kept = Kept::kCandidates;
    } else {
      std::erase_if(candidates_, [threshold](const Candidate& c) { return c.logit < threshold; });
    }
  }
  return kept;
}

int32_t Sampler::DrawFromAll(const DrawKey& key, float max) const {
  // The most probable id sets the score that the others must reach.
  const int32_t likeliest = FirstAtLeast({adjusted_, maxima_}, max);
  const DrawResult start{adjusted_[likeliest] + GumbelNoise(key, likeliest), likeliest};
  return Kernels()
      .draw(key, adjusted_.data(), static_cast<int64_t>(adjusted_.size()), maxima_.data(), start)
      .id;
}

int32_t Sampler::DrawFromCandidates(const DrawKey& key) const {
  constexpr size_t kBatch = 16;
  DrawResult best{-INFINITY, candidates_.front().id};
  for (size_t begin = 0; begin < candidates_.size(); begin += kBatch) {
    const size_t count = std::min(kBatch, candidates_.size() - begin);
    int32_t ids[kBatch] = {};
    for (size_t i = 0; i < count; ++i) ids[i] = candidates_[begin + i].id;
    float noise[kBatch];
    Kernels().noise(key, ids, noise);
    for (size_t i = 0; i < count; ++i) {
      const float score = candidates_[begin + i].logit + noise[i];
      if (score > best.score || (score == best.score && ids[i] < best.id)) best = {score, ids[i]};
    }
  }
  return best.id;
}

int32_t Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                        const SamplingContext& context) {
  const float max = Adjust(logits, params, context);
  if (IsGreedy(params)) return FirstAtLeast({adjusted_, maxima_}, max);
  const DrawKey key{params.seed, context.position, params.choice};
  return Filter(params, max) == Kept::kAll ? DrawFromAll(key, max) : DrawFromCandidates(key);
}

std::vector<double> Sampler::FilteredProbabilities(std::span<const float> logits,
                                                   const SamplingParams& params,
                                                   const SamplingContext& context) {
  std::vector<double> probabilities(logits.size(), 0.0);
  const float max = Adjust(logits, params, context);
  if (IsGreedy(params)) {
    probabilities[FirstAtLeast({adjusted_, maxima_}, max)] = 1.0;
    return probabilities;
  }
  if (Filter(params, max) == Kept::kAll) {
    CollectAtLeast({adjusted_, maxima_}, -INFINITY, candidates_);
  }
  const double total = SumOfExponentials(candidates_, max);
  for (const Candidate& c : candidates_) {
    probabilities[c.id] = std::exp(static_cast<double>(c.logit) - static_cast<double>(max)) / total;
  }
  return probabilities;
}

double LogSumExp(std::span<const float> logits) {
  const auto size = static_cast<int64_t>(logits.size());
  std::vector<float> maxima(GroupsOf(logits.size()));
  Kernels().group_max(logits.data(), size, maxima.data());
  const float max = *std::max_element(maxima.begin(), maxima.end());
  return static_cast<double>(max) + std::log(Kernels().sum_exp(logits.data(), size, max));
}

float Logprob(std::span<const float> logits, int32_t id) {
  return static_cast<float>(static_cast<double>(logits[id]) - LogSumExp(logits));
}

std::vector<TokenLogprob> TopLogprobs(std::span<const float> logits, int count) {
  std::vector<TokenLogprob> result;
  if (count <= 0) return result;
  std::vector<float> maxima(GroupsOf(logits.size()));
  Kernels().group_max(logits.data(), static_cast<int64_t>(logits.size()), maxima.data());
  std::vector<Candidate> candidates;
  CollectTopK({logits, maxima}, std::min<size_t>(count, logits.size()), candidates);
  SortByLogit(candidates);
  const double normalizer = LogSumExp(logits);
  for (const Candidate& c : candidates) {
    if (result.size() == static_cast<size_t>(count)) break;
    result.push_back({c.id, static_cast<float>(static_cast<double>(c.logit) - normalizer)});
  }
  return result;
}

}  // namespace hanlin
