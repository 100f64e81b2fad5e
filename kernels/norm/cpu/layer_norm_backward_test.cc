// Gradients of LayerNorm by finite differences in double arithmetic; threads change no bit.
#include "kernels/norm/cpu/layer_norm_backward.h"

#include <cmath>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class LayerNormBackwardTest : public testing::KernelTest {};

// sum(dy * LayerNorm(x)) in double: the scalar whose gradients the kernel computes.
double Objective(const std::vector<double>& x, const std::vector<double>& weight,
                 const std::vector<double>& bias, const std::vector<float>& dy, double epsilon) {
  const size_t width = weight.size();
  double total = 0;
  for (size_t r = 0; r < x.size() / width; ++r) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < width; ++i) mean += x[r * width + i] / width;
    for (size_t i = 0; i < width; ++i) variance += std::pow(x[r * width + i] - mean, 2) / width;
    for (size_t i = 0; i < width; ++i) {
      const double xhat = (x[r * width + i] - mean) / std::sqrt(variance + epsilon);
      total += dy[r * width + i] * (xhat * weight[i] + bias[i]);
    }
  }
  return total;
}

struct Gradients {
  std::vector<float> y, dx, dweight, dbias;
};
Gradients Compute(const std::vector<float>& x, const std::vector<float>& weight,
                  const std::vector<float>& bias, const std::vector<float>& dy, int threads) {
  ThreadPool pool(threads);
  const int64_t width = weight.size(), rows = x.size() / width;
  Gradients g = {std::vector<float>(x.size()), std::vector<float>(x.size(), 0.5f),
                 std::vector<float>(width), std::vector<float>(width)};
  std::vector<float> mean(rows), rstd(rows);
  LayerNormTrain({rows, width, x.data(), weight.data(), bias.data(), 1e-5f, mean.data(),
                  rstd.data(), g.y.data()},
                 pool);
  LayerNormBackward({rows, width, x.data(), weight.data(), mean.data(), rstd.data(), dy.data(),
                     g.dx.data(), g.dweight.data(), g.dbias.data()},
                    pool);
  return g;
}

TEST_P(LayerNormBackwardTest, GradientsMatchFiniteDifferences) {
  for (const int64_t width : {3, 16, 37, 160}) {
    const int64_t rows = 4;
    const auto x = RandomFloats(rows * width, 1, 2.0f), dy = RandomFloats(rows * width, 2);
    const auto weight = RandomFloats(width, 3), bias = RandomFloats(width, 4);
    const Gradients g = Compute(x, weight, bias, dy, 2);
    std::vector<double> xs(x.begin(), x.end()), ws(weight.begin(), weight.end()),
        bs(bias.begin(), bias.end());
    const auto slope = [&](double& value) {
      const double h = 1e-5, before = value;
      value = before + h;
      const double up = Objective(xs, ws, bs, dy, 1e-5);
      value = before - h;
      const double down = Objective(xs, ws, bs, dy, 1e-5);
      value = before;
      return (up - down) / (2 * h);
    };
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(g.dx[i] - 0.5, slope(xs[i]), 2e-5) << width;
    for (int64_t i = 0; i < width; ++i) {
      ASSERT_NEAR(g.dweight[i], slope(ws[i]), 2e-5);
      ASSERT_NEAR(g.dbias[i], slope(bs[i]), 2e-5);
    }
  }
}

TEST_P(LayerNormBackwardTest, BitsDoNotDependOnThreads) {
  const auto x = RandomFloats(70 * 200, 1), dy = RandomFloats(70 * 200, 2);
  const auto weight = RandomFloats(200, 3), bias = RandomFloats(200, 4);
  const Gradients one = Compute(x, weight, bias, dy, 1), four = Compute(x, weight, bias, dy, 4);
  EXPECT_TRUE(testing::SameBits(one.dx.data(), four.dx.data(), one.dx.size()));
  EXPECT_TRUE(testing::SameBits(one.dweight.data(), four.dweight.data(), 200));
  EXPECT_TRUE(testing::SameBits(one.dbias.data(), four.dbias.data(), 200));
  EXPECT_TRUE(testing::SameBits(one.y.data(), four.y.data(), one.y.size()));
}

TEST_P(LayerNormBackwardTest, OutputInBf16IsThatOfFp32Rounded) {
  const int64_t rows = 5, width = 75;
  const auto x = RandomFloats(rows * width, 1), weight = RandomFloats(width, 2);
  const auto bias = RandomFloats(width, 3);
  std::vector<float> want(x.size()), mean(rows), rstd(rows);
  std::vector<BFloat16> got(x.size());
  ThreadPool pool(2);
  LayerNormTrainParams p = {rows,  width,       x.data(),    weight.data(), bias.data(),
                            1e-5f, mean.data(), rstd.data(), want.data()};
  LayerNormTrain(p, pool);
  p.y = got.data();
  LayerNormTrain(p, pool);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i].bits, ToBFloat16(want[i]).bits);
}

INSTANTIATE_KERNEL_TEST(LayerNormBackwardTest);

}  // namespace
}  // namespace hanlin
