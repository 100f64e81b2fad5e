// LayerNorm against a double-precision loop: widths on and off the vector path, the residual step,
// chosen and padded rows, both types.
#include "kernels/norm/cuda/layer_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::TypeOf;

TEST(LayerNormTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) float memory[16] = {};
  CudaLayerNormParams params{
      .rows = 1, .width = 4, .x = memory, .weight = memory + 4, .bias = memory + 8, .y = memory};
  EXPECT_FALSE(CudaLayerNorm(params, nullptr).ok()) << "y is x";
  params.y = nullptr;
  EXPECT_FALSE(CudaLayerNorm(params, nullptr).ok());
  params.rows = -1;
  EXPECT_FALSE(CudaLayerNorm(params, nullptr).ok());
  params.rows = 0;
  EXPECT_TRUE(CudaLayerNorm(params, nullptr).ok());
  params.width = 0;
  EXPECT_FALSE(CudaLayerNorm(params, nullptr).ok());
}

enum class Delta { kNone, kPlain, kWithBias };

class LayerNormGpuTest : public GpuTest {
 protected:
  template <typename Y, typename D>
  void Check(int64_t width, Delta delta, const std::vector<int32_t>& index) {
    SCOPED_TRACE(::testing::Message() << "width " << width << " delta " << int(delta) << " index "
                                      << index.size() << " bytes " << sizeof(Y) << sizeof(D));
    constexpr int64_t kSources = 5;
    const int64_t rows = index.empty() ? kSources : static_cast<int64_t>(index.size());
    std::vector<float> x = RandomFloats(kSources * width, 3);
    for (float& value : x) value += 5.0f;  // a mean that a careless variance would lose
    const auto add = Convert<D>(RandomFloats(kSources * width, 4));
    const std::vector<float> add_bias = RandomFloats(width, 5), weight = RandomFloats(width, 6),
                             bias = RandomFloats(width, 7);
    const auto d_x = OnDevice(x);
    const auto d_add = OnDevice(add);
    const auto d_add_bias = OnDevice(add_bias), d_weight = OnDevice(weight),
               d_bias = OnDevice(bias);
    const auto d_index = OnDevice(index);
    const auto y = OnDevice(std::vector<Y>(rows * width));
    const absl::Status launched =
        CudaLayerNorm({.rows = rows,
                       .width = width,
                       .x = d_x.data(),
                       .row_index = index.empty() ? nullptr : d_index.data(),
                       .delta = delta == Delta::kNone ? nullptr : d_add.data(),
                       .delta_type = TypeOf<D>(),
                       .delta_bias = delta == Delta::kWithBias ? d_add_bias.data() : nullptr,
                       .weight = d_weight.data(),
                       .bias = d_bias.data(),
                       .epsilon = 1e-5f,
                       .y = y.data(),
                       .y_type = TypeOf<Y>()},
                      stream_.get());
    ASSERT_TRUE(launched.ok()) << launched;
    const std::vector<Y> got = FromDevice(y);
    const std::vector<float> got_x = FromDevice(d_x);
    std::vector<float> want_x = x;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t source = index.empty() ? r : index[r];
      if (source < 0) {
        for (int64_t i = 0; i < width; ++i) EXPECT_EQ(ToFloat(got[r * width + i]), 0.0f);
        continue;
      }
      float* row = &want_x[source * width];
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < width; ++i) {
        if (delta != Delta::kNone) {
          row[i] +=
              ToFloat(add[source * width + i]) + (delta == Delta::kWithBias ? add_bias[i] : 0.0f);
        }
        mean += row[i] / static_cast<double>(width);
      }
      for (int64_t i = 0; i < width; ++i)
        variance += std::pow(row[i] - mean, 2) / static_cast<double>(width);
      for (int64_t i = 0; i < width; ++i) {
        const double want = (row[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
        // fp32 arithmetic on values of about 5; bf16 rounds to 2^-9.
        double tolerance = 4e-6 * (std::abs(weight[i]) * 8 + 1);
        if (width < 3) tolerance += 1e-3;  // the variance is of the size of rounding errors
        if (sizeof(Y) == 2) tolerance += 0x1p-8 * std::abs(want);
        ASSERT_NEAR(ToFloat(got[r * width + i]), want, tolerance) << "row " << r << " at " << i;
      }
    }
    EXPECT_EQ(got_x, want_x);
  }
};

// What the sanitizers run.
TEST_F(LayerNormGpuTest, AFewSmallShapes) {
  for (int64_t width : {6, 768, 8200}) {
    Check<float, BFloat16>(width, Delta::kWithBias, {1, -1, 0});
    Check<BFloat16, float>(width, Delta::kNone, {});
  }
}

TEST_F(LayerNormGpuTest, AllWidthsWithAndWithoutTheResidualStep) {
  for (int64_t width : {1, 4, 6, 100, 768, 1024, 2048, 2560, 5120, 7168, 8192, 8200, 20481}) {
    for (Delta delta : {Delta::kNone, Delta::kPlain, Delta::kWithBias}) {
      Check<BFloat16, float>(width, delta, {});
      Check<float, BFloat16>(width, delta, {});
    }
  }
}

TEST_F(LayerNormGpuTest, ChosenRowsAndPaddedRows) {
  for (int64_t width : {7, 768, 7168, 8196}) {
    for (Delta delta : {Delta::kNone, Delta::kWithBias}) {
      Check<BFloat16, BFloat16>(width, delta, {4, -1, 0, 2});
      Check<float, float>(width, delta, {3});
    }
  }
}

TEST_F(LayerNormGpuTest, ARowDoesNotDependOnTheOthers) {
  const int64_t width = 2560, kRows = 1300;  // more rows than blocks
  const std::vector<float> x = RandomFloats(kRows * width, 1);
  const auto weight = OnDevice(RandomFloats(width, 2)), bias = OnDevice(RandomFloats(width, 3));
  const auto run = [&](int64_t rows, int64_t first) {
    const auto d_x = OnDevice(std::vector<float>(x.begin() + first * width, x.end()));
    const auto y = OnDevice(std::vector<float>(rows * width));
    EXPECT_TRUE(CudaLayerNorm({.rows = rows,
                               .width = width,
                               .x = d_x.data(),
                               .weight = weight.data(),
                               .bias = bias.data(),
                               .y = y.data(),
                               .y_type = ComputeType::kFloat32},
                              stream_.get())
                    .ok());
    return FromDevice(y);
  };
  const std::vector<float> all = run(kRows, 0), alone = run(1, 1237);
  const auto beside = all.begin() + 1237 * width;
  EXPECT_EQ(alone, std::vector<float>(beside, beside + width));
}

}  // namespace
}  // namespace hanlin
