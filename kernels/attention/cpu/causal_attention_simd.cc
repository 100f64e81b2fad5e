// Softmax over one row of scores and its derivative, compiled once per instruction set.
#include <math.h>

#include "kernels/attention/cpu/causal_attention_kernels.h"
#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

// fn(offset, lanes) over the row, the last call with fewer lanes.
template <typename Fn>
HANLIN_KERNEL_INLINE void ForLanes(int64_t count, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) fn(i, kLanes);
  if (i < count) fn(i, static_cast<int>(count - i));
}
template <typename T>
HANLIN_KERNEL_INLINE F LoadLanes(const T* p, int lanes) {
  return lanes == kLanes ? Load(p) : LoadFirst(p, lanes);
}
template <typename T>
HANLIN_KERNEL_INLINE void StoreLanes(T* p, F v, int lanes) {
  if (lanes == kLanes) {
    Store(p, v);
  } else {
    StoreFirst(p, v, lanes);
  }
}

float Softmax(float* scores, int64_t count, float scale) {
  const F scale_vector = Set1(scale);
  F maxima = Set1(-INFINITY);
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F x = Mul(LoadLanes(scores + i, lanes), scale_vector);
    maxima = Max(maxima, Select(FirstLanes(lanes), x, Set1(-INFINITY)));
  });
  const float maximum = ReduceMax(maxima);
  const F shift = Set1(maximum);
  F sums = Zero();
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F e = Exp(Sub(Mul(LoadLanes(scores + i, lanes), scale_vector), shift));
    StoreLanes(scores + i, e, lanes);
    sums = Add(sums, Select(FirstLanes(lanes), e, Zero()));
  });
  const float sum = ReduceAdd(sums);
  const F inverse = Set1(1.0f / sum);
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    StoreLanes(scores + i, Mul(LoadLanes(scores + i, lanes), inverse), lanes);
  });
  return maximum + logf(sum);
}

void Probabilities(float* scores, int64_t count, float scale, float log_sum) {
  const F scale_vector = Set1(scale), shift = Set1(log_sum);
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F x = Sub(Mul(LoadLanes(scores + i, lanes), scale_vector), shift);
    StoreLanes(scores + i, Exp(x), lanes);
  });
}

void DScores(const float* p, int64_t count, float delta, float scale, float* dp) {
  const F shift = Set1(delta), scale_vector = Set1(scale);
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F distance = Sub(LoadLanes(dp + i, lanes), shift);
    StoreLanes(dp + i, Mul(Mul(LoadLanes(p + i, lanes), scale_vector), distance), lanes);
  });
}

template <typename T>
float DotOf(const float* a, const T* b, int64_t count) {
  F sum = Zero();
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    sum = Fma(LoadLanes(a + i, lanes), LoadLanes(b + i, lanes), sum);
  });
  return ReduceAdd(sum);
}
float Dot(const float* a, const void* b, ComputeType b_type, int64_t count) {
  return b_type == ComputeType::kFloat32 ? DotOf(a, static_cast<const float*>(b), count)
                                         : DotOf(a, static_cast<const BFloat16*>(b), count);
}

template <typename T>
void StoreOf(const float* x, int64_t count, T* y) {
  ForLanes(count, [&](int64_t i, int lanes)
                      HANLIN_LAMBDA_INLINE { StoreLanes(y + i, LoadLanes(x + i, lanes), lanes); });
}
void StoreRow(const float* x, int64_t count, void* y, ComputeType y_type) {
  if (y_type == ComputeType::kFloat32) {
    StoreOf(x, count, static_cast<float*>(y));
  } else {
    StoreOf(x, count, static_cast<BFloat16*>(y));
  }
}

}  // namespace

extern const CausalAttentionKernels kCausalAttentionKernels = {Softmax, Probabilities, DScores, Dot,
                                                               StoreRow};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
