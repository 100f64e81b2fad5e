// GELU (erf) in place: the one epilogue of a linear layer that cublasLt lacks.
#ifndef HANLIN_KERNELS_GEMM_CUDA_GELU_LAUNCH_H_
#define HANLIN_KERNELS_GEMM_CUDA_GELU_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

// y [count] of `type`, any alignment of its type.
cudaError_t LaunchGeluErf(void* y, int64_t count, ComputeType type, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_GELU_LAUNCH_H_
