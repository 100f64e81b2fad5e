// The loops of elementwise.h, compiled once per instruction set.
#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/elementwise/cpu/elementwise_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

// out[i] = fn(offset i, lanes) for [0, count); fn gets the number of valid lanes.
template <typename Out, typename Fn>
HANLIN_KERNEL_INLINE void ForLanes(int64_t count, Out* out, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, fn(i, kLanes));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    StoreFirst(out + i, fn(i, rest), rest);
  }
}
template <typename T>
HANLIN_KERNEL_INLINE F LoadLanes(const T* p, int lanes) {
  return lanes == kLanes ? Load(p) : LoadFirst(p, lanes);
}

template <typename T>
void GeluOf(bool erf, const T* x, int64_t count, T* y) {
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
void GeluRow(bool erf, const void* x, int64_t count, void* y, ComputeType type) {
  if (type == ComputeType::kFloat32) {
    GeluOf(erf, static_cast<const float*>(x), count, static_cast<float*>(y));
  } else {
    GeluOf(erf, static_cast<const BFloat16*>(x), count, static_cast<BFloat16*>(y));
  }
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

// out(i, lanes, dropout(x(i, lanes))) for [0, count), the last call with fewer lanes.
template <typename In, typename Out>
HANLIN_KERNEL_INLINE void ForDropout(const DropoutParams& dropout, uint32_t row,
                                     uint32_t first_column, int64_t count, In x, Out out) {
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
      const int lanes = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
      const F uniform = Mul(UnsignedToF(AndI(MulLow(words[w], factors), top)), Set1(0x1p-32f));
      const F kept = Mul(x(i, lanes), scale);
      out(i, lanes, Select(Less(uniform, rate), Zero(), kept));
    }
  }
}

template <typename T>
HANLIN_KERNEL_INLINE void StoreLanes(T* p, F v, int lanes) {
  if (lanes == kLanes) {
    Store(p, v);
  } else {
    StoreFirst(p, v, lanes);
  }
}

void DropoutRow(const DropoutParams& dropout, uint32_t row, uint32_t first_column, const float* x,
                int64_t count, float* y) {
  ForDropout(
      dropout, row, first_column, count,
      [=](int64_t i, int lanes) HANLIN_LAMBDA_INLINE { return LoadLanes(x + i, lanes); },
      [=](int64_t i, int lanes, F v) HANLIN_LAMBDA_INLINE { StoreLanes(y + i, v, lanes); });
}

template <typename Out>
void DropoutAddOf(const DropoutAddRow& row, Out* y) {
  const auto in = [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F x = LoadLanes(row.x + i, lanes);
    return row.bias == nullptr ? x : Add(x, LoadLanes(row.bias + i, lanes));
  };
  const auto out = [&](int64_t i, int lanes, F v) HANLIN_LAMBDA_INLINE {
    StoreLanes(y + i, row.base == nullptr ? v : Add(v, LoadLanes(row.base + i, lanes)), lanes);
  };
  if (row.dropout.rate > 0) {
    ForDropout(row.dropout, row.row, 0, row.count, in, out);
    return;
  }
  for (int64_t i = 0; i < row.count; i += kLanes) {
    const int lanes = row.count - i < kLanes ? static_cast<int>(row.count - i) : kLanes;
    out(i, lanes, in(i, lanes));
  }
}
void DropoutAddKernel(const DropoutAddRow& row) {
  if (row.y_type == ComputeType::kFloat32) {
    DropoutAddOf(row, static_cast<float*>(row.y));
  } else {
    DropoutAddOf(row, static_cast<BFloat16*>(row.y));
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

extern const ElementwiseKernels kElementwiseKernels = {
    GeluRow, GeluBackwardRow, DropoutRow, DropoutAddKernel, AddRow, ScaleRow};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
