// The row and column kernels behind layer_norm_backward.h.
#ifndef HANLIN_KERNELS_NORM_CPU_NORM_BACKWARD_KERNELS_H_
#define HANLIN_KERNELS_NORM_CPU_NORM_BACKWARD_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

struct NormBackwardKernels {
  // One row forward; writes mean and rstd. y is float* or BFloat16* by y_type.
  void (*forward)(const float* x, const float* weight, const float* bias, int64_t width,
                  float epsilon, float* mean, float* rstd, void* y, ComputeType y_type);
  // One row backward; adds to dx.
  void (*dx)(const float* x, const float* weight, const float* dy, int64_t width, float mean,
             float rstd, float* dx);
  // One row's part of `count` columns; adds to dweight and dbias.
  void (*dweight)(const float* x, const float* dy, int64_t count, float mean, float rstd,
                  float* dweight, float* dbias);
};
HANLIN_DECLARE_KERNELS(NormBackwardKernels, kNormBackwardKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CPU_NORM_BACKWARD_KERNELS_H_
