// The loops behind adamw.h.
#ifndef HANLIN_KERNELS_OPTIM_CPU_ADAMW_KERNELS_H_
#define HANLIN_KERNELS_OPTIM_CPU_ADAMW_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

struct AdamWChunk {
  int64_t count;
  float* parameters;
  const float* gradients;
  float* m;
  float* v;
  float gradient_scale;
  float decay;       // 1 - lr weight_decay
  float beta1_rest;  // 1 - beta1
  float beta2, beta2_rest;
  float step_size;     // lr / (1 - beta1^step)
  float inverse_root;  // 1 / sqrt(1 - beta2^step)
  float epsilon;
};

struct AdamWKernels {
  void (*update)(const AdamWChunk& chunk);
  double (*sum_of_squares)(const float* x, int64_t count);
};
HANLIN_DECLARE_KERNELS(AdamWKernels, kAdamWKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CPU_ADAMW_KERNELS_H_
