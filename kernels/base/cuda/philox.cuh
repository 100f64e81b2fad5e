// Philox4x32 (Salmon et al., SC11), the generator of every random draw.
#ifndef HANLIN_KERNELS_BASE_CUDA_PHILOX_CUH_
#define HANLIN_KERNELS_BASE_CUDA_PHILOX_CUH_

#include <cstdint>

namespace hanlin {

// Turns a counter into its four words.
template <int kRounds = 10>
__device__ __forceinline__ void Philox4x32(uint32_t key0, uint32_t key1, uint32_t (&c)[4]) {
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(0xd2511f53u) * c[0];
    const uint64_t product1 = static_cast<uint64_t>(0xcd9e8d57u) * c[2];
    c[0] = static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0;
    c[2] = static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1;
    c[1] = static_cast<uint32_t>(product1);
    c[3] = static_cast<uint32_t>(product0);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_PHILOX_CUH_
