// A 64-bit digest of an array: two results are taken for the same bits when their digests agree.
#ifndef HANLIN_KERNELS_GEMM_CUDA_DIGEST_LAUNCH_H_
#define HANLIN_KERNELS_GEMM_CUDA_DIGEST_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hanlin {

// Adds the digest of `words` 16-bit words, aligned to 2 bytes, to *digest on the device.
cudaError_t LaunchDigest(const void* data, int64_t words, unsigned long long* digest,
                         cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_DIGEST_LAUNCH_H_
