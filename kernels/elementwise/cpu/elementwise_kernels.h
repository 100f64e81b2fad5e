// The row kernels behind elementwise.h; attention draws its dropout through them as well.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_KERNELS_H_
#define HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

// One row of DropoutAdd; y is float* or BFloat16* by y_type.
struct DropoutAddRow {
  DropoutParams dropout;
  uint32_t row;  // from dropout.first_row on
  int64_t count;
  const float* x;     // [count]
  const float* bias;  // [count] or null
  const float* base;  // [count] or null
  void* y;            // [count]
  ComputeType y_type;
};

struct ElementwiseKernels {
  // x and y are float* or BFloat16* by type.
  void (*gelu)(bool erf, const void* x, int64_t count, void* y, ComputeType type);
  void (*gelu_backward)(bool erf, const float* x, const float* dy, int64_t count, float* dx);
  // y[c] = x[c] * (kept(row, first_column + c) ? 1 / (1 - rate) : 0); first_column % 64 == 0.
  void (*dropout)(const DropoutParams& dropout, uint32_t row, uint32_t first_column, const float* x,
                  int64_t count, float* y);
  void (*dropout_add)(const DropoutAddRow& row);
  void (*add)(const float* x, int64_t count, float* y);  // y += x
  void (*scale)(float factor, int64_t count, float* y);
};
HANLIN_DECLARE_KERNELS(ElementwiseKernels, kElementwiseKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_KERNELS_H_
