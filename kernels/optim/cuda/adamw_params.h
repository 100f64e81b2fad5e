// Parameters of adamw.h, plain data that host and device code share.
#ifndef HANLIN_KERNELS_OPTIM_CUDA_ADAMW_PARAMS_H_
#define HANLIN_KERNELS_OPTIM_CUDA_ADAMW_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

// Arrays on the device, aligned to 16 bytes (high and low: 8); `count` is taken as the next
// multiple of 4, up to which the arrays must reach.
struct CudaAdamWArrays {
  int64_t count = 0;
  float* parameters = nullptr;  // or the two halves of split_master.h
  BFloat16* high = nullptr;
  uint16_t* low = nullptr;
  const float* gradients = nullptr;
  float* m = nullptr;
  float* v = nullptr;
};

// The numbers of AdamWParams (kernels/optim/cpu/adamw.h) as the update uses them.
struct AdamWNumbers {
  float gradient_scale;
  float decay;
  float beta1_rest;
  float beta2;
  float beta2_rest;
  float step_size;
  float inverse_root;
  float epsilon;
};

cudaError_t LaunchAdamW(const CudaAdamWArrays& arrays, const AdamWNumbers& numbers,
                        cudaStream_t stream);

// Partial sums of SumOfSquares.
inline constexpr int kSquareParts = 1056;
// partials [kSquareParts]; *sum = the sum of the squares of x [count], or += it with `add`.
cudaError_t LaunchSumOfSquares(const float* x, int64_t count, bool add, double* partials,
                               double* sum, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CUDA_ADAMW_PARAMS_H_
