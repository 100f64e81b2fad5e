// Loss and gradient against double arithmetic, whole and in shards; masked rows.
#include "kernels/loss/cpu/cross_entropy.h"

#include <cmath>
#include <limits>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class CrossEntropyTest : public testing::KernelTest {};

struct Result {
  std::vector<float> loss, gradient;
};

// Runs `shards` vocabulary shards one after another, as the ranks of a group would.
Result Compute(const std::vector<float>& logits, const std::vector<int32_t>& labels,
               const std::vector<float>& weights, int shards) {
  ThreadPool pool(2);
  const int64_t rows = labels.size(), v = logits.size() / rows, part = v / shards;
  std::vector<std::vector<float>> shard(shards);
  std::vector<CrossEntropyStat> all(rows * shards);
  for (int s = 0; s < shards; ++s) {
    for (int64_t r = 0; r < rows; ++r) {
      shard[s].insert(shard[s].end(), logits.begin() + r * v + s * part,
                      logits.begin() + r * v + (s + 1) * part);
    }
    std::vector<CrossEntropyStat> stats(rows);
    CrossEntropyStats({rows, s * part, part, shard[s].data(), labels.data()}, stats.data(), pool);
    for (int64_t r = 0; r < rows; ++r) all[r * shards + s] = stats[r];
  }
  std::vector<float> log_sum(rows);
  Result result = {std::vector<float>(rows), std::vector<float>(logits.size())};
  JoinStats(all.data(), rows, shards, log_sum.data(), result.loss.data());
  for (int s = 0; s < shards; ++s) {
    CrossEntropyGradient({rows, s * part, part, shard[s].data(), labels.data()}, log_sum.data(),
                         weights.data(), shard[s].data(), pool);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(shard[s].data() + r * part, part, result.gradient.data() + r * v + s * part);
    }
  }
  return result;
}

TEST_P(CrossEntropyTest, MatchesDoubleArithmeticWholeAndInShards) {
  const int64_t rows = 5, v = 84;
  auto logits = RandomFloats(rows * v, 1, 6.0f);
  const std::vector<int32_t> labels = {0, 83, 41, 42, 7};
  const std::vector<float> weights = {1, 0.5f, 2, 0.25f, 1};
  for (const int shards : {1, 2, 4}) {
    const Result result = Compute(logits, labels, weights, shards);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t j = 0; j < v; ++j) sum += std::exp(double{logits[r * v + j]});
      EXPECT_NEAR(result.loss[r], std::log(sum) - logits[r * v + labels[r]], 1e-5);
      for (int64_t j = 0; j < v; ++j) {
        const double p = std::exp(double{logits[r * v + j]}) / sum - (j == labels[r] ? 1 : 0);
        ASSERT_NEAR(result.gradient[r * v + j], weights[r] * p, 2e-6) << "shards " << shards;
      }
    }
  }
}

TEST_P(CrossEntropyTest, GradientMatchesFiniteDifferences) {
  const int64_t v = 8;
  std::vector<float> logits = RandomFloats(2 * v, 3, 2.0f);
  const std::vector<int32_t> labels = {5, 7};
  const std::vector<float> weights = {0.5f, 2.0f};
  const auto loss = [&] {
    const Result result = Compute(logits, labels, weights, 2);
    return double{weights[0]} * result.loss[0] + double{weights[1]} * result.loss[1];
  };
  const std::vector<float> gradient = Compute(logits, labels, weights, 2).gradient;
  constexpr float kStep = 0.03f;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    logits[i] = logit + kStep;
    const double above = loss();
    logits[i] = logit - kStep;
    const double below = loss();
    logits[i] = logit;
    EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), 2e-4) << i;
  }
}

TEST_P(CrossEntropyTest, MaskedRowsHaveNoGradientEvenWithoutALabelOrWithNaN) {
  auto logits = RandomFloats(2 * 20, 1);
  logits[3] = std::numeric_limits<float>::quiet_NaN();
  const Result result = Compute(logits, {-100, 4}, {0, 1}, 1);
  for (int j = 0; j < 20; ++j) EXPECT_EQ(result.gradient[j], 0.0f);
  EXPECT_LT(result.gradient[20 + 4], 0.0f);
}

TEST_P(CrossEntropyTest, GradientInBf16IsThatOfFp32Rounded) {
  ThreadPool pool(2);
  const int64_t rows = 3, v = 45;
  const auto logits = RandomFloats(rows * v, 1, 3.0f);
  const std::vector<int32_t> labels = {0, 44, 17};
  const std::vector<float> weights = {1, 0, 0.5f}, log_sum = {5, 6, 7};
  const CrossEntropyParams p = {rows, 0, v, logits.data(), labels.data()};
  std::vector<float> want(logits.size());
  std::vector<BFloat16> got(logits.size());
  CrossEntropyGradient(p, log_sum.data(), weights.data(), want.data(), pool);
  CrossEntropyGradient(p, log_sum.data(), weights.data(), got.data(), pool);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i].bits, ToBFloat16(want[i]).bits);
}

TEST_P(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  std::vector<float> logits(16, 0.0f);
  logits[3] = 1e4f;
  const Result result = Compute(logits, {3}, {1}, 2);
  EXPECT_NEAR(result.loss[0], 0.0, 1e-6);
}

INSTANTIATE_KERNEL_TEST(CrossEntropyTest);

}  // namespace
}  // namespace hanlin
