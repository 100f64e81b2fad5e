// The linear layer against a reference in double, and its independence of the batch bit by bit.
#include "kernels/gemm/cpu/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::KernelTest;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::SameBits;
using ::hanlin::testing::TypeOf;

constexpr double kEpsilon = 0x1p-23;  // of fp32

// A layer with random weights, bias and input, kept both as the kernel wants them and as plain
// numbers.
template <typename T>
struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, uint32_t seed = 1)
      : m(m),
        n(n),
        k(k),
        x(Convert<T>(RandomFloats(m * k, seed))),
        weights(Convert<T>(RandomFloats(n * k, seed + 1))),
        bias(RandomFloats(n, seed + 2)),
        residual(RandomFloats(m * n, seed + 3)),
        arena(*Arena::Create(PackedMatrix::Bytes(TypeOf<T>(), n, k))),
        packed(*PackedMatrix::Create(TypeOf<T>(), n, k, arena)) {
    packed.PackRows(0, n, weights.data());
  }

  LinearParams Params(std::vector<float>& y) const {
    y.assign(m * n, NAN);
    return {.m = m, .x = x.data(), .x_stride = k, .y = y.data(), .y_stride = n};
  }
  double Dot(int64_t row, int64_t column) const {
    double sum = 0;
    for (int64_t i = 0; i < k; ++i)
      sum += double{ToFloat(x[row * k + i])} * ToFloat(weights[column * k + i]);
    return sum;
  }
  // Bound of the rounding error of an fp32 sum of k products and two more terms, in any order.
  double Tolerance(int64_t row, int64_t column) const {
    double magnitude = std::abs(bias[column]) + std::abs(residual[row * n + column]);
    for (int64_t i = 0; i < k; ++i) {
      magnitude += std::abs(double{ToFloat(x[row * k + i])} * ToFloat(weights[column * k + i]));
    }
    return (k + 3) * kEpsilon * magnitude;
  }

  int64_t m, n, k;
  std::vector<T> x;        // [m, k]
  std::vector<T> weights;  // [n, k]
  std::vector<float> bias, residual;
  Arena arena;
  PackedMatrix packed;
};

template <typename T>
void ExpectMatchesReference(int64_t m, int64_t n, int64_t k, ThreadPool& pool) {
  const Problem<T> problem(m, n, k);
  std::vector<float> y;
  LinearParams params = problem.Params(y);
  params.bias = problem.bias.data();
  params.residual = problem.residual.data();
  params.residual_stride = n;
  Linear(problem.packed, params, pool);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      const double want = problem.Dot(r, c) + problem.bias[c] + problem.residual[r * n + c];
      ASSERT_NEAR(y[r * n + c], want, problem.Tolerance(r, c))
          << m << 'x' << n << 'x' << k << " at " << r << ',' << c;
    }
  }
}

class LinearTest : public KernelTest {};

TEST_P(LinearTest, MatchesAPlainReferenceOnEdgeShapes) {
  ThreadPool pool(2);
  for (int64_t m : {1, 2, 5, 6, 7, 13, 32}) {
    for (int64_t n : {1, 15, 16, 17, 65, 130}) {
      for (int64_t k : {1, 2, 7, 64, 333}) {
        ExpectMatchesReference<float>(m, n, k, pool);
        ExpectMatchesReference<BFloat16>(m, n, k, pool);
      }
    }
  }
  ExpectMatchesReference<float>(200, 33, 50, pool);  // more rows than are parked at once
  ExpectMatchesReference<BFloat16>(200, 33, 51, pool);
}

// Row `row` of x alone must give the bits that it gives among others.
template <typename T>
void ExpectRowsDoNotDependOnTheBatch(int64_t n, int64_t k) {
  constexpr int64_t kMaxRows = 64;
  const Problem<T> problem(kMaxRows, n, k);
  ThreadPool one(1);
  std::vector<float> alone;
  LinearParams params = problem.Params(alone);
  params.bias = problem.bias.data();
  params.activation = Activation::kGeluTanh;
  params.m = 1;
  for (int64_t row = 0; row < kMaxRows; ++row) {
    params.x = problem.x.data() + row * k;
    params.y = alone.data() + row * n;
    Linear(problem.packed, params, one);
  }
  ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(5)};
  for (int64_t m = 1; m <= kMaxRows; ++m) {
    std::vector<float> batch(m * n, NAN);
    params.m = m;
    params.x = problem.x.data() + (kMaxRows - m) * k;
    params.y = batch.data();
    Linear(problem.packed, params, pools[m % 3]);
    ASSERT_TRUE(SameBits(batch.data(), alone.data() + (kMaxRows - m) * n, m * n))
        << m << " rows, " << n << 'x' << k;
  }
}

TEST_P(LinearTest, ARowAloneHasTheBitsOfTheRowInABatchOf1To64) {
  ExpectRowsDoNotDependOnTheBatch<float>(90, 250);  // more than one block of k, a partial panel
  ExpectRowsDoNotDependOnTheBatch<BFloat16>(90, 451);
  ExpectRowsDoNotDependOnTheBatch<BFloat16>(16, 16);
}

double GeluErfReference(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
double GeluTanhReference(double x) {
  return 0.5 * x * (1 + std::tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
}

TEST_P(LinearTest, GeluIsWithinAFewUnitsOfItsDefinition) {
  // The identity layer: k = 1, weight 1, so that the activation sees x itself.
  Problem<float> problem(1, 1, 1);
  const float one = 1.0f;
  problem.packed.PackRows(0, 1, &one);
  ThreadPool pool(1);
  for (float x = -12.0f; x <= 12.0f; x += 0.0137f) {
    float tanh_form = 0, erf_form = 0;
    LinearParams params{.m = 1,
                        .x = &x,
                        .x_stride = 1,
                        .activation = Activation::kGeluTanh,
                        .y = &tanh_form,
                        .y_stride = 1};
    Linear(problem.packed, params, pool);
    params.activation = Activation::kGeluErf;
    params.y = &erf_form;
    Linear(problem.packed, params, pool);
    const double tolerance = 4 * kEpsilon * std::max(1.0, std::abs(double{x}));
    EXPECT_NEAR(tanh_form, GeluTanhReference(x), tolerance) << x;
    EXPECT_NEAR(erf_form, GeluErfReference(x), tolerance) << x;
  }
}

TEST_P(LinearTest, GeluOfExtremesIsZeroOrTheValueItself) {
  Problem<float> problem(1, 1, 1);
  const float one = 1.0f;
  problem.packed.PackRows(0, 1, &one);
  ThreadPool pool(1);
  for (Activation activation : {Activation::kGeluTanh, Activation::kGeluErf}) {
    for (float x : {-1e4f, -60.0f, 0.0f, 60.0f, 1e4f}) {
      float y = NAN;
      Linear(problem.packed,
             {.m = 1, .x = &x, .x_stride = 1, .activation = activation, .y = &y, .y_stride = 1},
             pool);
      EXPECT_NEAR(y, std::max(x, 0.0f), 1e-6f) << x;
    }
  }
}

TEST_P(LinearTest, AddsTheResidualInPlace) {
  const Problem<BFloat16> problem(9, 35, 40);
  ThreadPool pool(2);
  std::vector<float> separate;
  LinearParams params = problem.Params(separate);
  params.residual = problem.residual.data();
  params.residual_stride = 35;
  Linear(problem.packed, params, pool);
  std::vector<float> in_place = problem.residual;
  params.residual = in_place.data();
  params.y = in_place.data();
  Linear(problem.packed, params, pool);
  EXPECT_TRUE(SameBits(separate.data(), in_place.data(), separate.size()));
}

TEST_P(LinearTest, RoundsOutputToBFloat16AndWritesNothingElse) {
  const Problem<BFloat16> problem(7, 35, 40);
  ThreadPool pool(2);
  std::vector<float> y;
  LinearParams params = problem.Params(y);
  Linear(problem.packed, params, pool);
  const int64_t stride = 40;
  std::vector<BFloat16> narrow(7 * stride, BFloat16{0x1234});
  params.y = narrow.data();
  params.y_stride = stride;
  params.y_type = ComputeType::kBFloat16;
  Linear(problem.packed, params, pool);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 0; c < stride; ++c) {
      EXPECT_EQ(narrow[r * stride + c].bits, c < 35 ? ToBFloat16(y[r * 35 + c]).bits : 0x1234)
          << r << ' ' << c;
    }
  }
}

TEST_P(LinearTest, ReadsRowsWithAStride) {
  const Problem<float> problem(6, 20, 8);  // read as 3 rows of 8, 16 apart
  ThreadPool pool(1);
  std::vector<float> all, every_second;
  Linear(problem.packed, problem.Params(all), pool);
  LinearParams params = problem.Params(every_second);
  params.m = 3;
  params.x_stride = 16;
  Linear(problem.packed, params, pool);
  for (int64_t r = 0; r < 3; ++r)
    EXPECT_TRUE(SameBits(&every_second[r * 20], &all[2 * r * 20], 20));
}

TEST_P(LinearTest, NoRowsIsNoWork) {
  const Problem<float> problem(1, 4, 4);
  ThreadPool pool(2);
  LinearParams params;
  Linear(problem.packed, params, pool);
}

INSTANTIATE_KERNEL_TEST(LinearTest);

}  // namespace
}  // namespace hanlin
