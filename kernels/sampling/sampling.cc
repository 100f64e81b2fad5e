// The steps of sampling.h in their order; vector loops are in sampling_simd.cc, selection in
// candidates.cc.
#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/isa.h"
#include "kernels/sampling/philox.h"

namespace hanlin {
namespace {

// More candidates than this share of the vocabulary are drawn from as a masked vocabulary.
constexpr size_t kFewCandidates = 32;

const SamplingKernels& Kernels() { return HANLIN_ACTIVE_KERNELS(kSamplingKernels); }

size_t GroupsOf(size_t vocabulary) { return (vocabulary + kLogitGroup - 1) / kLogitGroup; }

double SumOfExponentials(const std::vector<Candidate>& candidates, float max) {
  double sum = 0.0;
  for (const Candidate& c : candidates) {
    sum += std::exp(static_cast<double>(c.logit) - static_cast<double>(max));
  }
  return sum;
}

uint64_t TopPLimit(float top_p, uint64_t total) {
  return static_cast<uint64_t>(static_cast<double>(top_p) * static_cast<double>(total));
}

}  // namespace

// Below this, scaled logits would lose the noise to rounding, or overflow.
bool IsGreedy(const SamplingParams& params) { return params.temperature <= 1e-5f; }

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

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
    if (HasPenalties(params)) ApplyPenalties(params, context.ids);
    source = adjusted_.data();
  }
  Kernels().scale(source, size, IsGreedy(params) ? 1.0f : 1.0f / params.temperature,
                  adjusted_.data());
  maxima_.resize(GroupsOf(logits.size()));
  Kernels().group_max(adjusted_.data(), size, maxima_.data());
  return *std::max_element(maxima_.begin(), maxima_.end());
}

void Sampler::ApplyPenalties(const SamplingParams& params, std::span<const int32_t> ids) {
  const auto size = static_cast<int64_t>(adjusted_.size());
  counts_.resize(adjusted_.size(), 0);
  for (int32_t id : ids) {
    if (id >= 0 && id < size) ++counts_[id];
  }
  for (int32_t id : ids) {
    if (id < 0 || id >= size || counts_[id] == 0) continue;
    const auto count = static_cast<float>(counts_[id]);
    counts_[id] = 0;  // once per id, and clean for the next call
    float& logit = adjusted_[id];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.frequency_penalty * count + params.presence_penalty;
  }
}

Sampler::Kept Sampler::Filter(const SamplingParams& params, float max) {
  const LogitView view{adjusted_, maxima_};
  Kept kept = Kept::kAll;
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < adjusted_.size()) {
    CollectTopK(view, params.top_k, candidates_);
    kept = Kept::kCandidates;
    if (params.top_p < 1.0f) CutCandidates(params.top_p, max);
  } else if (params.top_p < 1.0f) {
    kept = TopP(params.top_p, max);
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

Sampler::Kept Sampler::TopP(float top_p, float max) {
  constexpr size_t kUsual = 256;  // most distributions reach top_p within as many ids
  const LogitView view{adjusted_, maxima_};
  weights_.resize(adjusted_.size());
  const uint64_t total = Kernels().weigh(adjusted_.data(), static_cast<int64_t>(adjusted_.size()),
                                         max, weights_.data());
  const uint64_t limit = TopPLimit(top_p, total);
  if (total <= limit) return Kept::kAll;  // no weight at all: nothing but -infinity
  CollectTopK(view, std::min(kUsual, adjusted_.size()), candidates_);
  uint64_t sum = 0;
  for (Candidate& c : candidates_) sum += c.weight = weights_[c.id];
  if (sum > limit) {
    CutByWeight(0, limit, candidates_);
  } else {
    CollectByWeight(view, weights_, max, limit, candidates_);
  }
  return Kept::kCandidates;
}

void Sampler::CutCandidates(float top_p, float max) {
  std::vector<float> logits(candidates_.size());
  std::transform(candidates_.begin(), candidates_.end(), logits.begin(),
                 [](const Candidate& c) { return c.logit; });
  weights_.resize(std::max(weights_.size(), logits.size()));
  const uint64_t total =
      Kernels().weigh(logits.data(), static_cast<int64_t>(logits.size()), max, weights_.data());
  for (size_t i = 0; i < candidates_.size(); ++i) candidates_[i].weight = weights_[i];
  CutByWeight(0, TopPLimit(top_p, total), candidates_);
}

void Sampler::MaskAllButCandidates() {
  std::fill(adjusted_.begin(), adjusted_.end(), -INFINITY);
  for (const Candidate& c : candidates_) adjusted_[c.id] = c.logit;
  Kernels().group_max(adjusted_.data(), static_cast<int64_t>(adjusted_.size()), maxima_.data());
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
  DrawResult best{-INFINITY, INT32_MAX};
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
  if (Filter(params, max) == Kept::kCandidates) {
    if (candidates_.size() < adjusted_.size() / kFewCandidates) return DrawFromCandidates(key);
    MaskAllButCandidates();
  }
  return DrawFromAll(key, max);
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
