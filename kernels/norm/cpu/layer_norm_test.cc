// LayerNorm against a reference in double, residual addition and conversion exactly.
#include "kernels/norm/cpu/layer_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::KernelTest;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::SameBits;

class LayerNormTest : public KernelTest {
 protected:
  static LayerNormParams Params(int64_t rows, int64_t width, const std::vector<float>& x,
                                const std::vector<float>& weight, const std::vector<float>& bias,
                                std::vector<float>& y) {
    y.assign(rows * width, NAN);
    return {.rows = rows,
            .width = width,
            .x = x.data(),
            .x_stride = width,
            .weight = weight.data(),
            .bias = bias.data(),
            .epsilon = 1e-5f,
            .y = y.data(),
            .y_stride = width};
  }
};

TEST_P(LayerNormTest, MatchesAReferenceInDouble) {
  ThreadPool pool(2);
  for (int64_t width : {1, 3, 16, 17, 64, 100, 320, 768, 1000}) {
    const int64_t rows = 5;
    std::vector<float> x = RandomFloats(rows * width, 1, 3.0f);
    for (float& value : x)
      value += 20.0f;  // a mean far from zero: one-pass variance would lose digits
    const std::vector<float> weight = RandomFloats(width, 2), bias = RandomFloats(width, 3);
    std::vector<float> y;
    const LayerNormParams params = Params(rows, width, x, weight, bias, y);
    LayerNorm(params, pool);
    for (int64_t r = 0; r < rows; ++r) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < width; ++i) mean += x[r * width + i] / static_cast<double>(width);
      for (int64_t i = 0; i < width; ++i) variance += std::pow(x[r * width + i] - mean, 2) / width;
      // The mean carries a relative error of about epsilon; seen against the spread of the row.
      const double deviation = std::sqrt(variance + 1e-5);
      for (int64_t i = 0; i < width; ++i) {
        const double normalized = (x[r * width + i] - mean) / deviation;
        const double tolerance =
            0x1p-21 * (std::abs(normalized) + 1 + 30.0 / deviation) * std::abs(weight[i]) +
            0x1p-22 * std::abs(bias[i]);
        EXPECT_NEAR(y[r * width + i], normalized * weight[i] + bias[i], tolerance)
            << width << " at " << r << ',' << i;
      }
    }
  }
}

TEST_P(LayerNormTest, ARowDoesNotDependOnTheBatchOrTheThreads) {
  const int64_t rows = 33, width = 77;
  const std::vector<float> x = RandomFloats(rows * width, 1), weight = RandomFloats(width, 2),
                           bias = RandomFloats(width, 3);
  std::vector<float> batch, alone;
  ThreadPool four(4), one(1);
  LayerNorm(Params(rows, width, x, weight, bias, batch), four);
  LayerNormParams params = Params(rows, width, x, weight, bias, alone);
  params.rows = 1;
  for (int64_t r = 0; r < rows; ++r) {
    params.x = x.data() + r * width;
    params.y = alone.data() + r * width;
    LayerNorm(params, one);
  }
  EXPECT_TRUE(SameBits(batch.data(), alone.data(), batch.size()));
}

TEST_P(LayerNormTest, WritesInPlaceAndInBFloat16) {
  const int64_t rows = 3, width = 50;
  std::vector<float> x = RandomFloats(rows * width, 1);
  const std::vector<float> weight = RandomFloats(width, 2), bias = RandomFloats(width, 3);
  ThreadPool pool(1);
  std::vector<float> y;
  LayerNormParams params = Params(rows, width, x, weight, bias, y);
  LayerNorm(params, pool);
  std::vector<BFloat16> narrow(rows * width);
  params.y = narrow.data();
  params.y_type = ComputeType::kBFloat16;
  LayerNorm(params, pool);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(narrow[i].bits, ToBFloat16(y[i]).bits);
  params.y = x.data();
  params.y_type = ComputeType::kFloat32;
  LayerNorm(params, pool);
  EXPECT_TRUE(SameBits(x.data(), y.data(), y.size()));
}

TEST_P(LayerNormTest, ConstantRowsGiveTheBias) {
  const int64_t width = 40;
  const std::vector<float> x(width, 5.0f), weight = RandomFloats(width, 2),
                                           bias = RandomFloats(width, 3);
  std::vector<float> y;
  ThreadPool pool(1);
  LayerNorm(Params(1, width, x, weight, bias, y), pool);
  EXPECT_EQ(y, bias);
}

TEST_P(LayerNormTest, ResidualAddAddsDeltaAndBias) {
  const int64_t rows = 4, width = 35;
  const std::vector<float> before = RandomFloats(rows * width, 1),
                           delta = RandomFloats(rows * width, 2), bias = RandomFloats(width, 3);
  ThreadPool pool(3);
  std::vector<float> x = before;
  ResidualAdd({rows, width, delta.data(), bias.data(), x.data()}, pool);
  for (int64_t i = 0; i < rows * width; ++i)
    EXPECT_EQ(x[i], before[i] + (delta[i] + bias[i % width]));
  x = before;
  ResidualAdd({rows, width, delta.data(), nullptr, x.data()}, pool);
  for (int64_t i = 0; i < rows * width; ++i) EXPECT_EQ(x[i], before[i] + delta[i]);
}

TEST_P(LayerNormTest, ConversionRoundsLikeTheScalarOneOnEveryKindOfNumber) {
  std::vector<float> x = RandomFloats(1000, 1);
  x.insert(x.end(), {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, 3.4e38f, 0x1.01p0f, 0x1.03p0f});
  std::vector<BFloat16> y(x.size());
  ThreadPool pool(2);
  ConvertToBFloat16(x.data(), static_cast<int64_t>(x.size()), y.data(), pool);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i].bits, ToBFloat16(x[i]).bits) << x[i];
}

INSTANTIATE_KERNEL_TEST(LayerNormTest);

}  // namespace
}  // namespace hanlin
