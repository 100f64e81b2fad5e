// Filters against a full sort, draws against their definition, frequencies against probabilities.
#include "kernels/sampling/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/base/kernel_testing.h"
#include "kernels/sampling/philox.h"

namespace hanlin {
namespace {

using ::hanlin::testing::KernelTest;
using ::hanlin::testing::RandomFloats;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<int32_t> KeptIds(const std::vector<double>& probabilities) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    if (probabilities[id] > 0) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// Steps 4 to 6 on a fully sorted vocabulary, in double.
std::vector<int32_t> ReferenceKept(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const auto weight = [&](int32_t id) {
    return std::exp((double{logits[id]} - logits[order[0]]) / params.temperature);
  };
  if (params.top_k > 0 && params.top_k < static_cast<int32_t>(order.size())) {
    const float kth = logits[order[params.top_k - 1]];
    std::erase_if(order, [&](int32_t id) { return logits[id] < kth; });
  }
  double total = 0, before = 0;
  for (int32_t id : order) total += weight(id);
  for (size_t i = 0; i < order.size() && params.top_p < 1; before += weight(order[i]), ++i) {
    if (i > 0 && before > params.top_p * total) order.resize(i);
  }
  std::erase_if(order, [&](int32_t id) { return weight(id) < params.min_p; });
  std::sort(order.begin(), order.end());
  return order;
}

class SamplingTest : public KernelTest {
 protected:
  Sampler sampler_;
};

TEST_P(SamplingTest, FiltersKeepWhatAFullSortKeeps) {
  for (int size : {1, 3, 64, 65, 1000, 25600}) {
    const std::vector<float> logits = RandomFloats(size, size, 2.5f);
    for (int32_t top_k : {0, 1, 5, 50, 700, 30000}) {
      for (float top_p : {1.0f, 0.9f, 0.3f, 0.999f}) {
        for (float min_p : {0.0f, 0.05f}) {
          const SamplingParams params{
              .temperature = 0.8f, .top_k = top_k, .top_p = top_p, .min_p = min_p};
          EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, params, {})),
                    ReferenceKept(logits, params))
              << size << " ids, top_k " << top_k << ", top_p " << top_p << ", min_p " << min_p;
        }
      }
    }
  }
}

TEST_P(SamplingTest, TopPCutsFlatDistributionsAsAFullSortDoes) {
  for (float spread : {0.0f, 1e-3f, 0.3f, 1.0f, 8.0f}) {
    for (int levels : {0, 12}) {  // ties: logits rounded to so many steps
      std::vector<float> logits = RandomFloats(20000, 5, spread);
      if (levels > 0) {
        for (float& logit : logits) logit = std::round(logit * levels) / levels;
      }
      for (float top_p : {0.05f, 0.5f, 0.9f, 0.99f}) {
        const SamplingParams params{.top_p = top_p};
        const std::vector<int32_t> got =
            KeptIds(sampler_.FilteredProbabilities(logits, params, {}));
        const std::vector<int32_t> want = ReferenceKept(logits, params);
        // Weights are fp32 exponentials: their sum may lie on the other side of top_p at one id.
        EXPECT_LE(got.size(), want.size() + 1);
        EXPECT_GE(got.size() + 1, want.size());
        const bool prefix = std::includes(want.begin(), want.end(), got.begin(), got.end()) ||
                            std::includes(got.begin(), got.end(), want.begin(), want.end());
        EXPECT_TRUE(prefix) << spread << ' ' << levels << ' ' << top_p;
      }
    }
  }
}

TEST_P(SamplingTest, DrawsFromManyCandidatesAreThoseOfTheDefinition) {
  const std::vector<float> logits = RandomFloats(9000, 8, 0.4f);
  for (const SamplingParams& base : {SamplingParams{.top_p = 0.9f}, SamplingParams{.top_k = 5000},
                                     SamplingParams{.top_k = 4000, .top_p = 0.8f},
                                     SamplingParams{.top_p = 0.9f, .min_p = 0.3f}}) {
    SamplingParams params = base;
    params.seed = 4;
    const std::vector<int32_t> kept = KeptIds(sampler_.FilteredProbabilities(logits, params, {}));
    for (uint64_t position = 0; position < 20; ++position) {
      int32_t want = -1;
      float best = -kInfinity;
      for (int32_t id : kept) {
        const float score = logits[id] + GumbelNoise({params.seed, position, 0}, id);
        if (score > best) best = score, want = id;
      }
      EXPECT_EQ(sampler_.Sample(logits, params, {.position = position}), want);
    }
  }
}

TEST_P(SamplingTest, DrawsTheLargestLogitPlusNoiseOfTheKeptIds) {
  for (int size : {1, 17, 130, 25600}) {
    const std::vector<float> logits = RandomFloats(size, size + 1, 3.0f);
    for (const SamplingParams& base :
         {SamplingParams{}, SamplingParams{.temperature = 1.5f}, SamplingParams{.top_k = 40},
          SamplingParams{.temperature = 0.7f, .top_p = 0.9f}, SamplingParams{.min_p = 0.01f}}) {
      for (uint64_t position = 0; position < 20; ++position) {
        SamplingParams params = base;
        params.seed = 1000 + position;
        params.choice = static_cast<uint32_t>(position % 3);
        int32_t want = -1;
        float best = -kInfinity;
        for (int32_t id :
             KeptIds(sampler_.FilteredProbabilities(logits, params, {.position = position}))) {
          const float score = logits[id] * (1.0f / params.temperature) +
                              GumbelNoise({params.seed, position, params.choice}, id);
          if (score > best) best = score, want = id;
        }
        EXPECT_EQ(sampler_.Sample(logits, params, {.position = position}), want);
      }
    }
  }
}

TEST_P(SamplingTest, FrequenciesFollowTheProbabilities) {
  const std::vector<float> logits = {2.0f, 1.0f, 0.0f, -1.0f, 1.5f, -3.0f};
  const SamplingParams params{.temperature = 0.9f, .top_k = 5, .seed = 7};
  const std::vector<double> probabilities = sampler_.FilteredProbabilities(logits, params, {});
  constexpr int kDraws = 20000;
  std::vector<int> counts(logits.size());
  for (uint64_t position = 0; position < kDraws; ++position) {
    ++counts[sampler_.Sample(logits, params, {.position = position})];
  }
  for (size_t id = 0; id < logits.size(); ++id) {
    const double p = probabilities[id];
    EXPECT_NEAR(counts[id], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << id;
  }
}

TEST_P(SamplingTest, ARequestIsAPureFunctionWhateverWasSampledBefore) {
  const std::vector<float> logits = RandomFloats(500, 1), other = RandomFloats(900, 2);
  const std::vector<int32_t> ids = {1, 2, 2, 499};
  const SamplingParams params{
      .top_p = 0.9f, .repetition_penalty = 1.3f, .frequency_penalty = 0.2f, .seed = 3};
  const SamplingContext context{.ids = ids, .position = 8};
  const int32_t first = sampler_.Sample(logits, params, context);
  sampler_.Sample(other, SamplingParams{.top_k = 3, .presence_penalty = 1.0f}, context);
  EXPECT_EQ(sampler_.Sample(logits, params, context), first);
  EXPECT_EQ(Sampler().Sample(logits, params, context), first);
}

TEST_P(SamplingTest, TemperatureZeroTakesTheLowestIdAmongTheLargest) {
  std::vector<float> logits(200, 1.0f);
  logits[130] = logits[131] = logits[199] = 2.0f;
  for (float temperature : {0.0f, 1e-6f}) {
    const SamplingParams params{.temperature = temperature};
    EXPECT_EQ(sampler_.Sample(logits, params, {}), 130);
    EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, params, {})),
              std::vector<int32_t>{130});
  }
}

TEST_P(SamplingTest, TopKKeepsAllTiesWithTheKth) {
  const std::vector<float> logits = {1, 3, 2, 2, 0, 2};
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, {.top_k = 2}, {})),
            (std::vector<int32_t>{1, 2, 3, 5}));
}

TEST_P(SamplingTest, TopPCutsTiesByIdAndAlwaysKeepsTheFirst) {
  const std::vector<float> even(8, 0.5f);
  // 1/8 each: before the fifth lie 4/8, which is not above 0.5.
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(even, {.top_p = 0.5f}, {})),
            (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(even, {.top_p = 1e-6f}, {})),
            (std::vector<int32_t>{0}));
  const std::vector<float> peaked = {0, 50, 0};
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(peaked, {.top_p = 0.1f}, {})),
            (std::vector<int32_t>{1}));
}

TEST_P(SamplingTest, TopPWorksOnWhatTopKLeft) {
  // Of the two that top-k keeps the first has 0.73: below 0.8, so the second stays; without top-k
  // it is 0.64 of all.
  const std::vector<float> logits = {2, 1, 0, -1};
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, {.top_k = 2, .top_p = 0.7f}, {})),
            (std::vector<int32_t>{0}));
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, {.top_p = 0.7f}, {})),
            (std::vector<int32_t>{0, 1}));
}

TEST_P(SamplingTest, LogitBiasForbidsAndForces) {
  const std::vector<float> logits = {0, 1, 2, 3};
  const std::vector<LogitBias> forbid = {{3, -kInfinity}, {77, 1.0f}, {-1, 1.0f}};
  EXPECT_EQ(sampler_.Sample(logits, {.temperature = 0}, {.logit_bias = forbid}), 2);
  EXPECT_EQ(KeptIds(sampler_.FilteredProbabilities(logits, {}, {.logit_bias = forbid})),
            (std::vector<int32_t>{0, 1, 2}));
  for (uint64_t position = 0; position < 200; ++position) {
    EXPECT_NE(sampler_.Sample(logits, {.seed = 1}, {.logit_bias = forbid, .position = position}),
              3);
  }
  const std::vector<LogitBias> force = {{0, 100.0f}};
  EXPECT_EQ(sampler_.Sample(logits, {.seed = 1}, {.logit_bias = force}), 0);
}

TEST_P(SamplingTest, PenaltiesActOncePerIdAndFrequencyCountsPromptAndOutput) {
  const std::vector<float> logits = {1.0f, -1.0f, 2.0f, 0.5f, 3.0f};
  const std::vector<int32_t> ids = {0, 1, 0, 99, -5, 2, 2, 1, 2};
  const SamplingParams params{
      .repetition_penalty = 2.0f, .presence_penalty = 0.5f, .frequency_penalty = 0.25f};
  const std::vector<double> got = sampler_.FilteredProbabilities(logits, params, {.ids = ids});
  const std::vector<double> adjusted = {1.0 / 2 - 2 * 0.25 - 0.5, -1.0 * 2 - 2 * 0.25 - 0.5,
                                        2.0 / 2 - 3 * 0.25 - 0.5, 0.5, 3.0};
  double total = 0;
  for (double logit : adjusted) total += std::exp(logit);
  for (size_t id = 0; id < logits.size(); ++id)
    EXPECT_NEAR(got[id], std::exp(adjusted[id]) / total, 1e-6) << id;
}

TEST_P(SamplingTest, NanCountsAsMinusInfinityAndNothingButNanStillGivesAnId) {
  std::vector<float> logits = {NAN, 1.0f, NAN, 0.0f};
  EXPECT_EQ(sampler_.Sample(logits, {.temperature = 0}, {}), 1);
  for (uint64_t position = 0; position < 50; ++position) {
    EXPECT_EQ(sampler_.Sample(logits, {.seed = 2}, {.position = position}) % 2, 1);
  }
  const std::vector<float> all_nan(70, NAN);
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.temperature = 0}, SamplingParams{.top_k = 3},
        SamplingParams{.top_p = 0.5f}, SamplingParams{.min_p = 0.5f}}) {
    const int32_t id = sampler_.Sample(all_nan, params, {});
    EXPECT_GE(id, 0);
    EXPECT_LT(id, 70);
  }
}

TEST_P(SamplingTest, LogprobsAreTheLogSoftmaxOfTheRawLogits) {
  const std::vector<float> logits = RandomFloats(5000, 3, 4.0f);
  double sum = 0;
  for (float logit : logits) sum += std::exp(double{logit});
  const double normalizer = std::log(sum);
  EXPECT_NEAR(LogSumExp(logits), normalizer, 1e-6);
  for (int32_t id : {0, 1, 4999}) EXPECT_NEAR(Logprob(logits, id), logits[id] - normalizer, 2e-6);

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const std::vector<TokenLogprob> top = TopLogprobs(logits, 20);
  ASSERT_EQ(top.size(), 20u);
  for (size_t i = 0; i < top.size(); ++i) {
    EXPECT_EQ(top[i].id, order[i]);
    EXPECT_EQ(top[i].logprob, Logprob(logits, top[i].id));
  }
}

TEST_P(SamplingTest, TopLogprobsBreakTiesByIdAndStopAtTheVocabulary) {
  const std::vector<float> logits = {1, 2, 2, 2, 0};
  const std::vector<TokenLogprob> two = TopLogprobs(logits, 2);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0].id, 1);
  EXPECT_EQ(two[1].id, 2);
  EXPECT_EQ(TopLogprobs(logits, 100).size(), 5u);
  EXPECT_TRUE(TopLogprobs(logits, 0).empty());
}

INSTANTIATE_KERNEL_TEST(SamplingTest);

TEST(SamplingAcrossIsas, TheSameTokenIsDrawnUnderEveryInstructionSet) {
  const Isa before = ActiveIsa();
  const std::vector<float> logits = RandomFloats(8192, 11, 2.0f);
  for (uint64_t position = 0; position < 100; ++position) {
    std::vector<int32_t> drawn;
    for (Isa isa : SupportedIsas()) {
      SetIsaForTesting(isa);
      drawn.push_back(Sampler().Sample(logits, {.top_p = position % 2 ? 0.95f : 1.0f, .seed = 5},
                                       {.position = position}));
    }
    EXPECT_EQ(drawn, std::vector<int32_t>(drawn.size(), drawn[0]));
  }
  SetIsaForTesting(before);
}

}  // namespace
}  // namespace hanlin
