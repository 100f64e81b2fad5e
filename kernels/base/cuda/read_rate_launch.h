// The device side of read_rate.h, without abseil.
#ifndef HANLIN_KERNELS_BASE_CUDA_READ_RATE_LAUNCH_H_
#define HANLIN_KERNELS_BASE_CUDA_READ_RATE_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hanlin {

// Reads `bytes` (a multiple of 16) and writes nothing but a check word that is practically never
// hit.
cudaError_t LaunchRead(const void* data, size_t bytes, unsigned* check, cudaStream_t stream);
cudaError_t LaunchFillBFloat16(void* values, size_t count, float scale, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_READ_RATE_LAUNCH_H_
