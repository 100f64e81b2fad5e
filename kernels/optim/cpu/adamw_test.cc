// AdamW against double arithmetic over several steps; the norm; threads.
#include "kernels/optim/cpu/adamw.h"

#include <cmath>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class AdamWTest : public testing::KernelTest {};

TEST_P(AdamWTest, FollowsDoubleArithmeticOverTenSteps) {
  const int64_t n = 1003;
  std::vector<float> p = RandomFloats(n, 1), m(n), v(n);
  std::vector<double> wp(p.begin(), p.end()), wm(n), wv(n);
  ThreadPool pool(2);
  for (int step = 1; step <= 10; ++step) {
    const std::vector<float> g = RandomFloats(n, 100 + step);
    AdamWParams params = {.count = n, .parameters = p.data(), .gradients = g.data()};
    params.m = m.data();
    params.v = v.data();
    params.gradient_scale = 0.5f;
    params.learning_rate = 1e-2;
    params.weight_decay = 0.1;
    params.step = step;
    AdamW(params, pool);
    for (int64_t i = 0; i < n; ++i) {
      const double grad = 0.5 * g[i];
      wp[i] *= 1 - 1e-2 * 0.1;
      wm[i] = 0.9 * wm[i] + 0.1 * grad;
      wv[i] = 0.999 * wv[i] + 0.001 * grad * grad;
      wp[i] -= 1e-2 / (1 - std::pow(0.9, step)) * wm[i] /
               (std::sqrt(wv[i] / (1 - std::pow(0.999, step))) + 1e-8);
    }
  }
  for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(p[i], wp[i], 2e-6);
}

TEST_P(AdamWTest, ZeroGradientsStillDecay) {
  std::vector<float> p = {2.0f}, g = {0.0f}, m = {0.0f}, v = {0.0f};
  ThreadPool pool(1);
  AdamWParams params = {.count = 1, .parameters = p.data(), .gradients = g.data()};
  params.m = m.data();
  params.v = v.data();
  params.learning_rate = 0.1;
  params.weight_decay = 0.5;
  AdamW(params, pool);
  EXPECT_FLOAT_EQ(p[0], 1.9f);
}

TEST_P(AdamWTest, SumOfSquaresIsThatOfDoubleArithmeticForAnyNumberOfThreads) {
  const std::vector<float> x = RandomFloats(3 * kNormBlock + 17, 1, 100.0f);
  ThreadPool pool1(1), pool4(4);
  double want = 0;
  for (const float value : x) want += double{value} * value;
  const double one = SumOfSquares(x.data(), x.size(), pool1);
  EXPECT_NEAR(one / want, 1.0, 1e-12);
  EXPECT_EQ(one, SumOfSquares(x.data(), x.size(), pool4));
}

INSTANTIATE_KERNEL_TEST(AdamWTest);

}  // namespace
}  // namespace hanlin
