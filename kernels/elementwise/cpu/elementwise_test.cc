// GELU's derivative by finite differences, dropout bit by bit against its definition, sums.
#include "kernels/elementwise/cpu/elementwise.h"

#include <cmath>

#include "kernels/base/kernel_testing.h"
#include "kernels/sampling/philox.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

class ElementwiseTest : public testing::KernelTest {};

double GeluInDouble(GeluForm form, double x) {
  if (form == GeluForm::kErf) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

TEST_P(ElementwiseTest, GeluAndItsDerivativeMatchDoubleArithmetic) {
  ThreadPool pool(2);
  std::vector<float> x = RandomFloats(5003, 1, 3.0f);
  x[0] = 0;
  x[1] = -12;
  x[2] = 12;
  const std::vector<float> dy = RandomFloats(x.size(), 2);
  for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
    std::vector<float> y(x.size()), dx = dy;
    Gelu(form, x.data(), x.size(), y.data(), pool);
    GeluBackward(form, x.data(), dx.data(), x.size(), dx.data(), pool);  // in place
    for (size_t i = 0; i < x.size(); ++i) {
      const double h = 1e-5;
      const double slope = (GeluInDouble(form, x[i] + h) - GeluInDouble(form, x[i] - h)) / (2 * h);
      ASSERT_NEAR(y[i], GeluInDouble(form, x[i]), 2e-6 * (1 + std::abs(x[i]))) << x[i];
      ASSERT_NEAR(dx[i], dy[i] * slope, 3e-6 * (1 + std::abs(dy[i]))) << x[i];
    }
  }
}

TEST_P(ElementwiseTest, GeluInBf16RoundsOnce) {
  ThreadPool pool(2);
  const auto x = testing::Convert<BFloat16>(RandomFloats(1003, 1, 3.0f));
  const std::vector<float> exact = testing::ToFloats(x);
  std::vector<BFloat16> y(x.size());
  std::vector<float> want(x.size());
  Gelu(GeluForm::kTanh, x.data(), x.size(), y.data(), pool);
  Gelu(GeluForm::kTanh, exact.data(), x.size(), want.data(), pool);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, ToBFloat16(want[i]).bits);
}

TEST_P(ElementwiseTest, DropoutIsThePureFunctionOfTheHeader) {
  ThreadPool pool(2);
  const int64_t rows = 5, width = 203;
  const std::vector<float> x = RandomFloats(rows * width, 1);
  std::vector<float> y(x.size());
  const DropoutParams dropout = {0.3f, 0x123456789abcdefull, 9, 4, 100};
  DropoutAdd({rows, width, x.data(), nullptr, nullptr, y.data(), dropout}, pool);
  int dropped = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      const auto words = Philox4x32(
          {static_cast<uint32_t>(c / 64 * 8 + c % 16 / 2), static_cast<uint32_t>(100 + r), 4, 9},
          {0x89abcdefu, 0x01234567u}, 7);
      const uint32_t bits = words[c / 16 % 4] >> (c % 2 * 16) & 0x7fffu;
      const bool kept = static_cast<float>(bits) * 0x1p-15f >= 0.3f;
      dropped += kept ? 0 : 1;
      ASSERT_EQ(y[r * width + c], kept ? x[r * width + c] * (1.0f / (1.0f - 0.3f)) : 0.0f);
    }
  }
  EXPECT_NEAR(dropped / double(rows * width), 0.3, 0.05);
}

TEST_P(ElementwiseTest, DropoutAddsBiasBeforeAndTheResidualAfter) {
  ThreadPool pool(1);
  const std::vector<float> x = RandomFloats(70, 1), bias = RandomFloats(35, 2);
  std::vector<float> base = RandomFloats(70, 3), y(70);
  DropoutAdd({2, 35, x.data(), bias.data(), base.data(), y.data(), {}}, pool);
  for (int i = 0; i < 70; ++i) ASSERT_EQ(y[i], x[i] + bias[i % 35] + base[i]);
}

TEST_P(ElementwiseTest, ColumnSumsDoNotDependOnThreads) {
  const int64_t rows = 300, width = 150;
  const std::vector<float> x = RandomFloats(rows * width, 1);
  std::vector<float> one(width, 1.0f), four(width, 1.0f);
  ThreadPool pool1(1), pool4(4);
  AddColumnSums(x.data(), rows, width, one.data(), pool1);
  AddColumnSums(x.data(), rows, width, four.data(), pool4);
  EXPECT_TRUE(testing::SameBits(one.data(), four.data(), width));
  double want = 1;
  for (int64_t r = 0; r < rows; ++r) want += x[r * width + 149];
  EXPECT_NEAR(one[149], want, 1e-4);
}

TEST_P(ElementwiseTest, DropoutRoundsWhatItStoresInBf16) {
  ThreadPool pool(2);
  const std::vector<float> x = RandomFloats(3 * 75, 1);
  std::vector<float> want(x.size());
  std::vector<BFloat16> got(x.size());
  const DropoutParams dropout = {0.3f, 7, 9, 4, 100};
  DropoutAdd({3, 75, x.data(), nullptr, nullptr, want.data(), dropout}, pool);
  DropoutAdd({3, 75, x.data(), nullptr, nullptr, got.data(), dropout}, pool);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i].bits, ToBFloat16(want[i]).bits);
}

INSTANTIATE_KERNEL_TEST(ElementwiseTest);

}  // namespace
}  // namespace hanlin
