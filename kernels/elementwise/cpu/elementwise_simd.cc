// The loops of elementwise.h, compiled once per instruction set.
#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/elementwise/cpu/elementwise_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

// out[i] = fn(offset i, lanes) for [0, count); fn gets the number of valid lanes.
template <typename Fn>
HANLIN_KERNEL_INLINE void ForLanes(int64_t count, float* out, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, fn(i, kLanes));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    StoreFirst(out + i, fn(i, rest), rest);
  }
}
HANLIN_KERNEL_INLINE F LoadLanes(const float* p, int lanes) {
  return lanes == kLanes ? Load(p) : LoadFirst(p, lanes);
}

void GeluRow(bool erf, const float* x, int64_t count, float* y) {
  if (erf) {
    ForLanes(count, y, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      return GeluErf(LoadLanes(x + i, lanes));
    });
  } else {
    ForLanes(count, y, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      return GeluTanh(LoadLanes(x + i, lanes));
    });
  }
}

// With s = 1 / (1 + e^(-2u)): y = x s, y' = s + 2 x s (1 - s) u'.
HANLIN_KERNEL_INLINE F GeluTanhDerivative(F x) {
  const F one = Set1(1.0f);
  const F square = Mul(x, x);
  const F u = Mul(Mul(x, Set1(0.79788456f)), Fma(square, Set1(0.044715f), one));
  const F du = Mul(Set1(0.79788456f), Fma(square, Set1(3 * 0.044715f), one));
  const F s = Div(one, Add(one, Exp(Mul(u, Set1(-2.0f)))));
  const F slope = Mul(Mul(x, s), Mul(Sub(one, s), Mul(Set1(2.0f), du)));
  return Add(s, slope);
}

// Phi(x) + x phi(x).
HANLIN_KERNEL_INLINE F GeluErfDerivative(F x) {
  F bell;
  const F cdf = Mul(Set1(0.5f), TwiceNormalCdf(x, &bell));
  return Fma(Mul(x, Set1(0.39894228f)), bell, cdf);
}

void GeluBackwardRow(bool erf, const float* x, const float* dy, int64_t count, float* dx) {
  if (erf) {
    ForLanes(count, dx, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      return Mul(LoadLanes(dy + i, lanes), GeluErfDerivative(LoadLanes(x + i, lanes)));
    });
  } else {
    ForLanes(count, dx, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      return Mul(LoadLanes(dy + i, lanes), GeluTanhDerivative(LoadLanes(x + i, lanes)));
    });
  }
}

// Philox4x32-7 on 16 counters that differ in their first word.
HANLIN_KERNEL_INLINE void Philox(I counter[4], uint32_t key0, uint32_t key1) {
  const I multiplier0 = SetI(0xd2511f53u);
  const I multiplier1 = SetI(0xcd9e8d57u);
  for (int round = 0; round < 7; ++round) {
    const I low0 = MulLow(counter[0], multiplier0), high0 = MulHigh(counter[0], multiplier0);
    const I low1 = MulLow(counter[2], multiplier1), high1 = MulHigh(counter[2], multiplier1);
    counter[0] = XorI(XorI(high1, counter[1]), SetI(key0));
    counter[1] = low1;
    counter[2] = XorI(XorI(high0, counter[3]), SetI(key1));
    counter[3] = low0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
}

void DropoutRow(const DropoutParams& dropout, uint32_t row, uint32_t first_column, const float* x,
                int64_t count, float* y) {
  static const uint32_t kCounters[16] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7};
  // These move a lane's 15 bits of a word to the top.
  static const uint32_t kFactors[16] = {1 << 17, 2, 1 << 17, 2, 1 << 17, 2, 1 << 17, 2,
                                        1 << 17, 2, 1 << 17, 2, 1 << 17, 2, 1 << 17, 2};
  const I counters = LoadI(kCounters), factors = LoadI(kFactors), top = SetI(0xfffe0000u);
  const F rate = Set1(dropout.rate);
  const F scale = Set1(1.0f / (1.0f - dropout.rate));
  for (int64_t begin = 0; begin < count; begin += 4 * kLanes) {
    const uint32_t group = (first_column + static_cast<uint32_t>(begin)) / 64 * 8;
    I words[4] = {AddI(counters, SetI(group)), SetI(row), SetI(dropout.site), SetI(dropout.step)};
    Philox(words, static_cast<uint32_t>(dropout.seed), static_cast<uint32_t>(dropout.seed >> 32));
    for (int w = 0; w < 4; ++w) {
      const int64_t i = begin + w * kLanes;
      if (i >= count) break;
      const int valid = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
      const F uniform = Mul(UnsignedToF(AndI(MulLow(words[w], factors), top)), Set1(0x1p-32f));
      const F kept = Mul(LoadLanes(x + i, valid), scale);
      const F result = Select(Less(uniform, rate), Zero(), kept);
      if (valid == kLanes) {
        Store(y + i, result);
      } else {
        StoreFirst(y + i, result, valid);
      }
    }
  }
}

void AddRow(const float* x, int64_t count, float* y) {
  ForLanes(count, y, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    return Add(LoadLanes(y + i, lanes), LoadLanes(x + i, lanes));
  });
}

void ScaleRow(float factor, int64_t count, float* y) {
  ForLanes(count, y, [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    return Mul(LoadLanes(y + i, lanes), Set1(factor));
  });
}

}  // namespace

extern const ElementwiseKernels kElementwiseKernels = {GeluRow, GeluBackwardRow, DropoutRow, AddRow,
                                                       ScaleRow};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
