// What linear.cc hands to the micro-kernels of linear_simd.cc: one thread's panels of one linear
// layer.
#ifndef HANLIN_KERNELS_GEMM_CPU_LINEAR_KERNELS_H_
#define HANLIN_KERNELS_GEMM_CPU_LINEAR_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/gemm/cpu/linear_params.h"

namespace hanlin {

struct LinearTask {
  LinearParams params;
  const void* weights = nullptr;  // panel 0 of the packed matrix
  int64_t n = 0;
  int64_t k = 0;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
};

struct LinearKernels {
  void (*float32)(const LinearTask& task);
  void (*bfloat16)(const LinearTask& task);
};
HANLIN_DECLARE_KERNELS(LinearKernels, kLinearKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_LINEAR_KERNELS_H_
