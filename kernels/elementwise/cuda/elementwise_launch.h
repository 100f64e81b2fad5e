// Launchers of elementwise.h.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_LAUNCH_H_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

// Arrays of `type`, counts and widths multiples of 8, pointers aligned to 16 bytes.
cudaError_t LaunchGelu(bool erf, ComputeType type, const void* x, int64_t count, void* y,
                       cudaStream_t stream);
cudaError_t LaunchDropout(const DropoutParams& dropout, ComputeType type, const void* x,
                          int64_t rows, int64_t width, void* y, cudaStream_t stream);
// These leave the first stage of the sums of dx or y by column (column_sums_launch.h).
cudaError_t LaunchGeluBackwardSums(bool erf, ComputeType type, const void* x, const void* dy,
                                   int64_t rows, int64_t width, void* dx, float* partials,
                                   cudaStream_t stream);
cudaError_t LaunchDropoutSums(const DropoutParams& dropout, ComputeType type, const void* x,
                              int64_t rows, int64_t width, void* y, float* partials,
                              cudaStream_t stream);
// Between bf16 and fp32.
cudaError_t LaunchWiden(const void* x, int64_t count, float* y, cudaStream_t stream);
cudaError_t LaunchNarrow(const float* x, int64_t count, void* y, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_LAUNCH_H_
