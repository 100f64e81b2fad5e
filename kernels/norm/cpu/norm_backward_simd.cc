// LayerNorm with saved statistics and its backward pass, compiled once per instruction set.
#include <math.h>

#include "kernels/base/simd.h"
#include "kernels/norm/cpu/norm_backward_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {
namespace {

// fn(offset, lanes) over the row, the last call with fewer lanes.
template <typename Fn>
HANLIN_KERNEL_INLINE void ForLanes(int64_t width, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) fn(i, kLanes);
  if (i < width) fn(i, static_cast<int>(width - i));
}
HANLIN_KERNEL_INLINE F LoadLanes(const float* p, int lanes) {
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

void Forward(const float* x, const float* weight, const float* bias, int64_t width, float epsilon,
             float* mean_out, float* rstd_out, void* y, ComputeType y_type) {
  F sum = Zero();
  ForLanes(width, [&](int64_t i, int lanes)
                      HANLIN_LAMBDA_INLINE { sum = Add(sum, LoadLanes(x + i, lanes)); });
  const float mean = ReduceAdd(sum) / static_cast<float>(width);
  const F mean_vector = Set1(mean);
  F squares = Zero();
  ForLanes(width, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F distance = Sub(LoadLanes(x + i, lanes), mean_vector);
    squares = Add(squares, Select(FirstLanes(lanes), Mul(distance, distance), Zero()));
  });
  const float rstd = 1.0f / sqrtf(ReduceAdd(squares) / static_cast<float>(width) + epsilon);
  *mean_out = mean;
  *rstd_out = rstd;
  const F rstd_vector = Set1(rstd);
  const auto value = [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F xhat = Mul(Sub(LoadLanes(x + i, lanes), mean_vector), rstd_vector);
    return Fma(xhat, LoadLanes(weight + i, lanes), LoadLanes(bias + i, lanes));
  };
  if (y_type == ComputeType::kFloat32) {
    ForLanes(width, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      StoreLanes(static_cast<float*>(y) + i, value(i, lanes), lanes);
    });
  } else {
    ForLanes(width, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
      StoreLanes(static_cast<BFloat16*>(y) + i, value(i, lanes), lanes);
    });
  }
}

void Dx(const float* x, const float* weight, const float* dy, int64_t width, float mean, float rstd,
        float* dx) {
  const F mean_vector = Set1(mean), rstd_vector = Set1(rstd);
  F sum_g = Zero(), sum_gx = Zero();
  // Lanes behind the row load as 0, so g is 0 there.
  ForLanes(width, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F g = Mul(LoadLanes(dy + i, lanes), LoadLanes(weight + i, lanes));
    const F xhat = Mul(Sub(LoadLanes(x + i, lanes), mean_vector), rstd_vector);
    sum_g = Add(sum_g, g);
    sum_gx = Fma(g, xhat, sum_gx);
  });
  const F mean_g = Set1(ReduceAdd(sum_g) / static_cast<float>(width));
  const F mean_gx = Set1(ReduceAdd(sum_gx) / static_cast<float>(width));
  ForLanes(width, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F g = Mul(LoadLanes(dy + i, lanes), LoadLanes(weight + i, lanes));
    const F xhat = Mul(Sub(LoadLanes(x + i, lanes), mean_vector), rstd_vector);
    const F inner = Sub(Sub(g, mean_g), Mul(xhat, mean_gx));
    StoreLanes(dx + i, Fma(inner, rstd_vector, LoadLanes(dx + i, lanes)), lanes);
  });
}

void DWeight(const float* x, const float* dy, int64_t count, float mean, float rstd, float* dweight,
             float* dbias) {
  const F mean_vector = Set1(mean), rstd_vector = Set1(rstd);
  ForLanes(count, [&](int64_t i, int lanes) HANLIN_LAMBDA_INLINE {
    const F d = LoadLanes(dy + i, lanes);
    const F xhat = Mul(Sub(LoadLanes(x + i, lanes), mean_vector), rstd_vector);
    StoreLanes(dweight + i, Fma(d, xhat, LoadLanes(dweight + i, lanes)), lanes);
    StoreLanes(dbias + i, Add(d, LoadLanes(dbias + i, lanes)), lanes);
  });
}

}  // namespace

extern const NormBackwardKernels kNormBackwardKernels = {Forward, Dx, DWeight};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE
