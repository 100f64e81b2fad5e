// Pairs of bf16 in 32-bit words, and sums over a warp.
#ifndef HANLIN_KERNELS_BASE_CUDA_VECTORS_CUH_
#define HANLIN_KERNELS_BASE_CUDA_VECTORS_CUH_

#include <cuda_bf16.h>

#include <cstdint>

namespace hanlin {

__device__ __forceinline__ float LowBFloat16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighBFloat16(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// Rounds to nearest even.
__device__ __forceinline__ uint32_t PackBFloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_VECTORS_CUH_
