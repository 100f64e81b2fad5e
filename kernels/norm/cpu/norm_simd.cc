// LayerNorm, residual addition and conversion on vectors, compiled once per instruction set. A row
// is summed in four accumulators of 16 lanes (the width alone decides which element goes where)
// that are added in a fixed order.
#include <math.h>

#include "kernels/base/simd.h"
#include "kernels/norm/cpu/norm_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

constexpr int64_t kUnroll = 4;

// Sum of term(x[i]) over the row; lanes beyond the width count as 0.
template <typename Term>
HANLIN_KERNEL_INLINE float SumOfRow(const float* x, int64_t width, Term term) {
  F sums[kUnroll] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (; i + kUnroll * kLanes <= width; i += kUnroll * kLanes) {
    for (int64_t j = 0; j < kUnroll; ++j) sums[j] = Add(sums[j], term(Load(x + i + j * kLanes)));
  }
  for (; i + kLanes <= width; i += kLanes) sums[0] = Add(sums[0], term(Load(x + i)));
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    sums[1] = Add(sums[1], Select(FirstLanes(rest), term(LoadFirst(x + i, rest)), Zero()));
  }
  return ReduceAdd(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

template <typename Out>
void Normalize(const LayerNormRow& row, F mean, F scale, Out* y) {
  const auto value = [&](F x, F weight, F bias) HANLIN_LAMBDA_INLINE {
    return Fma(Mul(Sub(x, mean), scale), weight, bias);
  };
  int64_t i = 0;
  for (; i + kLanes <= row.width; i += kLanes) {
    Store(y + i, value(Load(row.x + i), Load(row.weight + i), Load(row.bias + i)));
  }
  if (i < row.width) {
    const int rest = static_cast<int>(row.width - i);
    const F last = value(LoadFirst(row.x + i, rest), LoadFirst(row.weight + i, rest),
                         LoadFirst(row.bias + i, rest));
    StoreFirst(y + i, last, rest);
  }
}

void LayerNormOfRow(const LayerNormRow& row) {
  const float width = static_cast<float>(row.width);
  const float mean = SumOfRow(row.x, row.width, [](F x) HANLIN_LAMBDA_INLINE { return x; }) / width;
  const F mean_vector = Set1(mean);
  const float variance = SumOfRow(row.x, row.width,
                                  [&](F x) HANLIN_LAMBDA_INLINE {
                                    const F distance = Sub(x, mean_vector);
                                    return Mul(distance, distance);
                                  }) /
                         width;
  const F scale = Set1(1.0f / sqrtf(variance + row.epsilon));
  if (row.y_type == ComputeType::kFloat32) {
    Normalize(row, mean_vector, scale, static_cast<float*>(row.y));
  } else {
    Normalize(row, mean_vector, scale, static_cast<BFloat16*>(row.y));
  }
}

void ResidualAddRow(const float* delta, const float* bias, int64_t count, float* x) {
  const auto sum = [&](F a, F d, F b) HANLIN_LAMBDA_INLINE { return Add(a, Add(d, b)); };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Store(x + i, sum(Load(x + i), Load(delta + i), bias == nullptr ? Zero() : Load(bias + i)));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    const F b = bias == nullptr ? Zero() : LoadFirst(bias + i, rest);
    StoreFirst(x + i, sum(LoadFirst(x + i, rest), LoadFirst(delta + i, rest), b), rest);
  }
}

void ToBFloat16Row(const float* x, int64_t count, BFloat16* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(y + i, Load(x + i));
  for (; i < count; ++i) y[i] = ToBFloat16(x[i]);
}

}  // namespace

extern const NormKernels kNormKernels = {LayerNormOfRow, ResidualAddRow, ToBFloat16Row};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
