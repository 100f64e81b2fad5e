// Rows of logits for cross_entropy.h, compiled once per instruction set.
#include <math.h>

#include "kernels/base/simd.h"
#include "kernels/base/simd_math.h"
#include "kernels/loss/cpu/cross_entropy_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

void Stats(const float* x, int64_t count, float* maximum, float* sum) {
  F maxima = Set1(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) maxima = Max(maxima, Load(x + i));
  const int rest = static_cast<int>(count - i);
  if (rest > 0) {
    maxima = Max(maxima, Select(FirstLanes(rest), LoadFirst(x + i, rest), Set1(-INFINITY)));
  }
  *maximum = ReduceMax(maxima);
  const F shift = Set1(*maximum);
  F sums = Zero();
  for (i = 0; i + kLanes <= count; i += kLanes) sums = Add(sums, Exp(Sub(Load(x + i), shift)));
  if (rest > 0) {
    const F e = Exp(Sub(LoadFirst(x + i, rest), shift));
    sums = Add(sums, Select(FirstLanes(rest), e, Zero()));
  }
  *sum = ReduceAdd(sums);
}

HANLIN_KERNEL_INLINE void Assign(float* y, float value) { *y = value; }
HANLIN_KERNEL_INLINE void Assign(BFloat16* y, float value) { *y = ToBFloat16(value); }

template <typename Out>
void GradientOf(const float* x, int64_t count, float log_sum, float weight, int64_t label, Out* y) {
  const F shift = Set1(log_sum), factor = Set1(weight);
  float at_label = 0;
  if (label >= 0) {
    float lanes[kLanes];
    Store(lanes, Mul(Exp(Sub(Set1(x[label]), shift)), factor));
    at_label = lanes[0] - weight;
  }
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Store(y + i, Mul(Exp(Sub(Load(x + i), shift)), factor));
  }
  const int rest = static_cast<int>(count - i);
  if (rest > 0) StoreFirst(y + i, Mul(Exp(Sub(LoadFirst(x + i, rest), shift)), factor), rest);
  if (label >= 0) Assign(y + label, at_label);
}

void Gradient(const float* x, int64_t count, float log_sum, float weight, int64_t label, void* y,
              ComputeType y_type) {
  if (y_type == ComputeType::kFloat32) {
    GradientOf(x, count, log_sum, weight, label, static_cast<float*>(y));
  } else {
    GradientOf(x, count, log_sum, weight, label, static_cast<BFloat16*>(y));
  }
}

}  // namespace

extern const CrossEntropyKernels kCrossEntropyKernels = {Stats, Gradient};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
