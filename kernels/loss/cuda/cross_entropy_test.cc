// Cross-entropy on the GPU against the CPU kernels: whole and in shards, both types, rows on and
// off the vector path, masked rows.
#include "kernels/loss/cuda/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::ToFloats;
using ::hanlin::testing::TypeOf;

TEST(CrossEntropyCudaTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) float memory[8] = {};
  CrossEntropyStat stat = {};
  EXPECT_FALSE(CudaCrossEntropyStats({.rows = 1, .vocabulary_size = 8}, 0, 1, &stat, nullptr).ok())
      << "no pointers";
  EXPECT_FALSE(
      CudaCrossEntropyGradient({.rows = 0, .vocabulary_size = 8}, memory, memory, nullptr).ok());
}

struct Result {
  std::vector<float> loss, gradient;
};

// Part `shard` of every row.
template <typename T>
std::vector<T> Slice(const std::vector<T>& logits, int64_t rows, int shards, int shard) {
  const int64_t v = logits.size() / rows, part = v / shards;
  std::vector<T> slice;
  for (int64_t r = 0; r < rows; ++r) {
    const auto begin = logits.begin() + r * v + shard * part;
    slice.insert(slice.end(), begin, begin + part);
  }
  return slice;
}

class CrossEntropyGpuTest : public HopperTest {
 protected:
  // The shards one after another, as the ranks of a group would; their numbers are summed on the
  // host, as the communicator sums them.
  template <typename T>
  Result OnGpu(const std::vector<T>& logits, const std::vector<int32_t>& labels,
               const std::vector<float>& weights, int shards) {
    const int64_t rows = labels.size(), v = logits.size() / rows, part = v / shards;
    const auto d_labels = OnDevice(labels);
    const auto d_weights = OnDevice(weights);
    std::vector<DeviceBuffer<T>> parts;
    std::vector<CrossEntropyStat> sum(rows * shards);
    const auto params = [&](int shard) {
      return CudaCrossEntropyParams{.type = TypeOf<T>(),
                                    .rows = rows,
                                    .vocabulary_begin = shard * part,
                                    .vocabulary_size = part,
                                    .logits = parts[shard].data(),
                                    .labels = d_labels.data()};
    };
    for (int s = 0; s < shards; ++s) {
      parts.push_back(OnDevice(Slice(logits, rows, shards, s)));
      const auto stats = OnDevice(std::vector<CrossEntropyStat>(rows * shards, {NAN, NAN, NAN}));
      EXPECT_TRUE(CudaCrossEntropyStats(params(s), s, shards, stats.data(), stream_.get()).ok());
      const std::vector<CrossEntropyStat> own = FromDevice(stats);
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i].maximum += own[i].maximum;
        sum[i].sum += own[i].sum;
        sum[i].target += own[i].target;
      }
    }
    const auto stats = OnDevice(sum);
    const auto log_sum = OnDevice(std::vector<float>(rows)),
               loss = OnDevice(std::vector<float>(rows));
    EXPECT_TRUE(
        CudaJoinStats(stats.data(), rows, shards, log_sum.data(), loss.data(), stream_.get()).ok());
    Result result = {FromDevice(loss), std::vector<float>(logits.size())};
    for (int s = 0; s < shards; ++s) {
      EXPECT_TRUE(
          CudaCrossEntropyGradient(params(s), log_sum.data(), d_weights.data(), stream_.get())
              .ok());
      const std::vector<float> gradient = ToFloats(FromDevice(parts[s]));
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(gradient.data() + r * part, part, result.gradient.data() + r * v + s * part);
      }
    }
    return result;
  }

  template <typename T>
  Result InOneStep(const std::vector<T>& logits, const std::vector<int32_t>& labels,
                   const std::vector<float>& weights) {
    const int64_t rows = labels.size();
    const auto d_logits = OnDevice(logits);
    const auto d_labels = OnDevice(labels);
    const auto d_weights = OnDevice(weights), loss = OnDevice(std::vector<float>(rows));
    EXPECT_TRUE(CudaCrossEntropy({.type = TypeOf<T>(),
                                  .rows = rows,
                                  .vocabulary_size = static_cast<int64_t>(logits.size()) / rows,
                                  .logits = d_logits.data(),
                                  .labels = d_labels.data()},
                                 d_weights.data(), loss.data(), stream_.get())
                    .ok());
    return {FromDevice(loss), ToFloats(FromDevice(d_logits))};
  }

  static Result OnCpu(std::vector<float> logits, const std::vector<int32_t>& labels,
                      const std::vector<float>& weights) {
    ThreadPool pool(1);
    const int64_t rows = labels.size();
    std::vector<CrossEntropyStat> stats(rows);
    std::vector<float> log_sum(rows), loss(rows);
    const CrossEntropyParams params = {rows, 0, static_cast<int64_t>(logits.size()) / rows,
                                       logits.data(), labels.data()};
    CrossEntropyStats(params, stats.data(), pool);
    JoinStats(stats.data(), rows, 1, log_sum.data(), loss.data());
    CrossEntropyGradient(params, log_sum.data(), weights.data(), logits.data(), pool);
    return {loss, logits};
  }

  template <typename T>
  void CompareWithCpu(int64_t v, int shards) {
    SCOPED_TRACE(::testing::Message()
                 << v << " ids of " << sizeof(T) << " bytes in " << shards << " shards");
    const int64_t rows = 6;
    const auto logits = Convert<T>(RandomFloats(rows * v, 1, 6.0f));
    const auto last = static_cast<int32_t>(v - 1);
    const std::vector<int32_t> labels = {0, last, last / 2, last / 2 + 1, last / 3, -100};
    const std::vector<float> weights = {1, 0.5f, 2, 0.25f, 1, 0};
    const Result want = OnCpu(ToFloats(logits), labels, weights),
                 got = OnGpu(logits, labels, weights, shards);
    for (int64_t r = 0; r < rows; ++r) ASSERT_NEAR(got.loss[r], want.loss[r], 2e-5) << r;
    if (shards == 1) {
      const Result whole = InOneStep(logits, labels, weights);
      EXPECT_EQ(whole.loss, got.loss);
      EXPECT_EQ(whole.gradient, got.gradient);
    }
    const double relative = sizeof(T) == 2 ? 0x1p-8 : 1e-5;
    for (size_t i = 0; i < want.gradient.size(); ++i) {
      ASSERT_NEAR(got.gradient[i], want.gradient[i], 1e-7 + relative * std::abs(want.gradient[i]))
          << i;
    }
  }
};

// What the sanitizers run.
TEST_F(CrossEntropyGpuTest, AFewSmallShapes) {
  for (const int shards : {1, 2}) {
    CompareWithCpu<float>(42, shards);
    CompareWithCpu<BFloat16>(4104, shards);
  }
}

TEST_F(CrossEntropyGpuTest, MatchesTheCpuWholeAndInShards) {
  for (const int shards : {1, 2, 4}) {
    for (const int64_t part : {8, 21, 1000, 4104}) {
      CompareWithCpu<float>(part * shards, shards);
      CompareWithCpu<BFloat16>(part * shards, shards);
    }
  }
  CompareWithCpu<BFloat16>(50257, 1);
  CompareWithCpu<BFloat16>(51200, 1);
  CompareWithCpu<float>(51200, 1);
  CompareWithCpu<BFloat16>(131072, 1);
}

// More rows than blocks at once, so that a block takes several.
TEST_F(CrossEntropyGpuTest, OneStepHasTheBitsOfThree) {
  for (const int64_t v : {8, 1000, 8200, 33000}) {
    const int64_t rows = 600;
    std::vector<int32_t> labels(rows);
    std::vector<float> weights(rows);
    for (int64_t r = 0; r < rows; ++r) {
      labels[r] = r % 7 == 3 ? -100 : static_cast<int32_t>(r * 31 % v);
      weights[r] = r % 7 == 3 ? 0.0f : 1.0f / static_cast<float>(r + 1);
    }
    const auto logits = Convert<BFloat16>(RandomFloats(rows * v, 5, 6.0f));
    const Result three = OnGpu(logits, labels, weights, 1),
                 one = InOneStep(logits, labels, weights);
    EXPECT_EQ(one.loss, three.loss) << v;
    EXPECT_TRUE(one.gradient == three.gradient) << v;
  }
}

TEST_F(CrossEntropyGpuTest, MaskedRowsHaveNoGradientEvenWithoutALabelOrWithNaN) {
  std::vector<float> logits = RandomFloats(2 * 24, 1);
  logits[3] = std::numeric_limits<float>::quiet_NaN();
  const Result result = OnGpu(logits, {-100, 4}, {0, 1}, 1);
  const Result whole = InOneStep(logits, {-100, 4}, {0, 1});
  for (int j = 0; j < 24; ++j) {
    EXPECT_EQ(result.gradient[j], 0.0f);
    EXPECT_EQ(whole.gradient[j], 0.0f);
  }
  EXPECT_LT(result.gradient[24 + 4], 0.0f);
}

TEST_F(CrossEntropyGpuTest, LargeLogitsDoNotOverflow) {
  std::vector<float> logits(16, 0.0f);
  logits[3] = 1e4f;
  const Result result = OnGpu(logits, {3}, {1}, 2);
  EXPECT_NEAR(result.loss[0], 0.0, 1e-6);
  for (float value : result.gradient) EXPECT_NEAR(value, 0.0, 1e-6);
}

}  // namespace
}  // namespace hanlin
