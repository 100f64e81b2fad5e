// The row kernels behind layer_norm.h.
#ifndef HANLIN_KERNELS_NORM_CPU_NORM_KERNELS_H_
#define HANLIN_KERNELS_NORM_CPU_NORM_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

// One row of LayerNorm; y is float* or BFloat16* by y_type.
struct LayerNormRow {
  int64_t width;
  const float* x;       // [width]
  const float* weight;  // [width]
  const float* bias;    // [width]
  float epsilon;
  void* y;  // [width]
  ComputeType y_type;
};

struct NormKernels {
  void (*layer_norm)(const LayerNormRow& row);
  // x += delta + bias (bias may be null), [count]
  void (*residual_add)(const float* delta, const float* bias, int64_t count, float* x);
  void (*to_bfloat16)(const float* x, int64_t count, BFloat16* y);
};
HANLIN_DECLARE_KERNELS(NormKernels, kNormKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CPU_NORM_KERNELS_H_
