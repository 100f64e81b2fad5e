// The products of matmul.h against double arithmetic, over edge shapes, transpositions and threads.
#include "kernels/gemm/cpu/matmul.h"

#include <cmath>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using testing::RandomFloats;

struct Shape {
  int64_t m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},    {6, 64, 16},   {7, 65, 17},    {5, 3, 300},
                         {97, 70, 31}, {13, 1100, 9}, {200, 40, 1283}};

class MatMulTest : public testing::KernelTest {};

TEST_P(MatMulTest, EqualsDoubleArithmeticForEveryTransposition) {
  ThreadPool pool(3);
  for (const Shape& s : kShapes) {
    for (int form = 0; form < 4; ++form) {
      const bool ta = (form & 1) != 0, tb = (form & 2) != 0;
      const auto a = RandomFloats(s.m * s.k, 1), b = RandomFloats(s.k * s.n, 2);
      const auto bias = RandomFloats(s.n, 3), start = RandomFloats(s.m * s.n, 4);
      std::vector<float> c = start;
      MatMulParams p = {.m = s.m, .n = s.n, .k = s.k, .a = a.data(), .b = b.data()};
      p.a_transposed = ta;
      p.b_transposed = tb;
      p.a_stride = ta ? s.m : s.k;
      p.b_stride = tb ? s.k : s.n;
      p.bias = bias.data();
      p.accumulate = form >= 2;
      p.c = c.data();
      p.c_stride = s.n;
      MatMul(p, pool);
      for (int64_t i = 0; i < s.m; ++i) {
        for (int64_t j = 0; j < s.n; ++j) {
          double want = bias[j] + (p.accumulate ? start[i * s.n + j] : 0.0);
          double magnitude = std::abs(want);
          for (int64_t k = 0; k < s.k; ++k) {
            const double product = static_cast<double>(ta ? a[k * s.m + i] : a[i * s.k + k]) *
                                   (tb ? b[j * s.k + k] : b[k * s.n + j]);
            want += product;
            magnitude += std::abs(product);
          }
          // Two roundings of half a unit a step that add up like a random walk.
          const double tolerance = 0x1p-22 * magnitude * std::sqrt(static_cast<double>(s.k + 2));
          ASSERT_NEAR(c[i * s.n + j], want, tolerance)
              << s.m << "x" << s.n << "x" << s.k << " form " << form << " at " << i << "," << j;
        }
      }
    }
  }
}

// Only the operands are rounded: against fp32 on operands rounded before, sums differ by the order
// within a pair.
TEST_P(MatMulTest, Bf16RoundsTheOperandsAndNothingElse) {
  ThreadPool pool(3);
  for (const Shape& s : kShapes) {
    for (int form = 0; form < 4; ++form) {
      auto a = RandomFloats(s.m * s.k, 1), b = RandomFloats(s.k * s.n, 2);
      const auto bias = RandomFloats(s.n, 3), start = RandomFloats(s.m * s.n, 4);
      std::vector<float> got = start, want = start;
      MatMulParams p = {.m = s.m, .n = s.n, .k = s.k, .a = a.data(), .b = b.data()};
      p.a_transposed = (form & 1) != 0;
      p.b_transposed = (form & 2) != 0;
      p.a_stride = p.a_transposed ? s.m : s.k;
      p.b_stride = p.b_transposed ? s.k : s.n;
      p.bias = bias.data();
      p.accumulate = form >= 2;
      p.c = got.data();
      p.c_stride = s.n;
      p.type = ComputeType::kBFloat16;
      MatMul(p, pool);
      for (auto* operand : {&a, &b}) {
        for (float& value : *operand) value = ToFloat(ToBFloat16(value));
      }
      p.c = want.data();
      p.type = ComputeType::kFloat32;
      MatMul(p, pool);
      EXPECT_LT(testing::RelativeError(got, want), 2e-6)
          << s.m << "x" << s.n << "x" << s.k << " form " << form;
    }
  }
}

TEST_P(MatMulTest, OperandsStoredInBf16GiveTheBitsOfRoundingThem) {
  ThreadPool pool(3);
  Shape shapes[] = {{1, 1, 1}, {48, 70, 64}, {64, 32, 1280}, {7, 65, 17}, {200, 40, 1283}};
  for (const Shape& s : shapes) {
    for (int form = 0; form < 4; ++form) {
      const auto a = RandomFloats(s.m * s.k, 1), b = RandomFloats(s.k * s.n, 2);
      const auto a16 = testing::Convert<BFloat16>(a), b16 = testing::Convert<BFloat16>(b);
      std::vector<float> got(s.m * s.n), want(s.m * s.n);
      MatMulParams p = {.m = s.m, .n = s.n, .k = s.k, .a = a.data(), .b = b.data()};
      p.a_transposed = (form & 1) != 0;
      p.b_transposed = (form & 2) != 0;
      p.a_stride = p.a_transposed ? s.m : s.k;
      p.b_stride = p.b_transposed ? s.k : s.n;
      p.c = want.data();
      p.c_stride = s.n;
      p.type = ComputeType::kBFloat16;
      MatMul(p, pool);
      p.a = a16.data();
      p.b = b16.data();
      p.c = got.data();
      MatMul(p, pool);
      EXPECT_TRUE(testing::SameBits(got.data(), want.data(), got.size()))
          << s.m << "x" << s.n << "x" << s.k << " form " << form;
    }
  }
}

TEST_P(MatMulTest, SumsOfTransposedRowsAreAddedForAnyNumberOfThreads) {
  ThreadPool pool1(1), pool3(3);
  const int64_t m = 203, n = 40, k = 1400;
  const auto a = RandomFloats(k * m, 1), b = RandomFloats(k * n, 2);
  for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    std::vector<float> c(m * n), one(m, 2.0f), three(m, 2.0f);
    MatMulParams p = {.m = m, .n = n, .k = k, .a = a.data(), .a_stride = m, .a_transposed = true};
    p.b = b.data();
    p.b_stride = n;
    p.c = c.data();
    p.c_stride = n;
    p.type = type;
    p.a_sums = one.data();
    MatMul(p, pool1);
    p.a_sums = three.data();
    MatMul(p, pool3);
    EXPECT_TRUE(testing::SameBits(one.data(), three.data(), m));
    for (int64_t i = 0; i < m; ++i) {
      double want = 2;
      for (int64_t j = 0; j < k; ++j) {
        const float value = a[j * m + i];
        want += type == ComputeType::kFloat32 ? value : ToFloat(ToBFloat16(value));
      }
      ASSERT_NEAR(one[i], want, 1e-4) << "row " << i;
    }
  }
}

// Of the same sums: c rounded, and GELU of what c holds.
TEST_P(MatMulTest, EpiloguesFollowThePlainProduct) {
  ThreadPool pool(3);
  const Shape shapes[] = {{1, 1, 1}, {48, 70, 64}, {70, 64, 1300}, {7, 65, 17}};
  for (const Shape& s : shapes) {
    for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
      const auto a = RandomFloats(s.m * s.k, 1), b = RandomFloats(s.k * s.n, 2);
      const auto bias = RandomFloats(s.n, 3), before = RandomFloats(s.m * s.n, 4);
      const size_t size = s.m * s.n;
      std::vector<float> plain(size), c(size), other = before;
      std::vector<BFloat16> c16(size), other16 = testing::Convert<BFloat16>(before);
      MatMulParams p = {.m = s.m, .n = s.n, .k = s.k, .a = a.data(), .a_stride = s.k};
      p.b = b.data();
      p.b_stride = s.n;
      p.bias = bias.data();
      p.type = type;
      p.c = plain.data();
      p.c_stride = s.n;
      MatMul(p, pool);
      const bool rounded = type == ComputeType::kBFloat16;
      p.c = rounded ? Array(c16.data()) : Array(c.data());
      p.other = rounded ? Array(other16.data()) : Array(other.data());
      const auto gelu = [&](bool erf, double x) {
        return erf ? 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)))
                   : 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
      };
      const auto value = [&](const std::vector<float>& exact, const std::vector<BFloat16>& bf16,
                             size_t i) { return rounded ? ToFloat(bf16[i]) : exact[i]; };
      const double unit = rounded ? 0x1p-8 : 4e-6;
      using E = MatMulEpilogue;
      for (const E backward : {E::kGeluTanhBackward, E::kGeluErfBackward}) {
        p.epilogue = backward;
        MatMul(p, pool);
        for (size_t i = 0; i < size; ++i) {
          const double x = value(other, other16, i), h = 1e-5;
          const bool erf = backward == E::kGeluErfBackward;
          const double slope = (gelu(erf, x + h) - gelu(erf, x - h)) / (2 * h);
          ASSERT_NEAR(value(c, c16, i), plain[i] * slope, unit * (1 + 1.2 * std::abs(plain[i])));
        }
      }
      for (const E forward : {E::kNone, E::kGeluTanh, E::kGeluErf}) {
        p.epilogue = forward;
        MatMul(p, pool);
        for (size_t i = 0; i < size; ++i) {
          const float want = rounded ? ToFloat(ToBFloat16(plain[i])) : plain[i];
          ASSERT_EQ(value(c, c16, i), want) << "at " << i;
          if (forward == E::kNone) continue;
          ASSERT_NEAR(value(other, other16, i), gelu(forward == E::kGeluErf, want),
                      unit * (1 + std::abs(want)));
        }
      }
    }
  }
}

TEST_P(MatMulTest, PackingOnceGivesTheSameBits) {
  ThreadPool pool(3);
  const int64_t n = 2100, k = 1300, rows = 37;
  for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (const bool transposed : {false, true}) {
      const auto a = RandomFloats(2 * rows * k, 1), b = RandomFloats(k * n, 2);
      std::vector<float> got(2 * rows * n), want(2 * rows * n);
      MatMulParams p = {.m = 2 * rows, .n = n, .k = k, .a = a.data(), .a_stride = k};
      p.b = b.data();
      p.b_stride = transposed ? k : n;
      p.b_transposed = transposed;
      p.c = want.data();
      p.c_stride = n;
      p.type = type;
      MatMul(p, pool);
      PackedB packed;
      packed.Pack(p, pool);
      p.packed_b = &packed;
      p.m = rows;
      for (int half = 0; half < 2; ++half) {
        p.a = a.data() + half * rows * k;
        p.c = got.data() + half * rows * n;
        MatMul(p, pool);
      }
      EXPECT_TRUE(testing::SameBits(got.data(), want.data(), got.size())) << transposed;
    }
  }
}

TEST_P(MatMulTest, BitsDoNotDependOnThreadsOrNeighbours) {
  const int64_t m = 101, n = 130, k = 700;
  for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    const auto a = RandomFloats(m * k, 1), b = RandomFloats(k * n, 2);
    MatMulParams p = {.m = m, .n = n, .k = k, .a = a.data(), .a_stride = k};
    p.b = b.data();
    p.b_stride = n;
    p.type = type;
    p.c_stride = n;
    std::vector<float> one(m * n), four(m * n), alone(n);
    ThreadPool pool1(1), pool4(4);
    p.c = one.data();
    MatMul(p, pool1);
    p.c = four.data();
    MatMul(p, pool4);
    EXPECT_TRUE(testing::SameBits(one.data(), four.data(), one.size()));
    p.m = 1;
    p.a = a.data() + 57 * k;
    p.c = alone.data();
    MatMulOnThisThread(p);
    EXPECT_TRUE(testing::SameBits(one.data() + 57 * n, alone.data(), n));
  }
}

TEST_P(MatMulTest, WritesNothingBeyondItsColumns) {
  const auto a = RandomFloats(5 * 8, 1), b = RandomFloats(8 * 20, 2);
  std::vector<float> c(5 * 32, 7.0f);
  ThreadPool pool(1);
  MatMulParams p = {.m = 5, .n = 20, .k = 8, .a = a.data(), .a_stride = 8};
  p.b = b.data();
  p.b_stride = 20;
  p.c = c.data();
  p.c_stride = 32;
  MatMul(p, pool);
  for (int row = 0; row < 5; ++row) {
    for (int j = 20; j < 32; ++j) EXPECT_EQ(c[row * 32 + j], 7.0f);
  }
}

INSTANTIATE_KERNEL_TEST(MatMulTest);

}  // namespace
}  // namespace hanlin
