// Sixteen bytes of fp32 or bf16 at a time as fp32 numbers, and sums over a block.
#ifndef HANLIN_KERNELS_BASE_CUDA_PACKED_CUH_
#define HANLIN_KERNELS_BASE_CUDA_PACKED_CUH_

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {

template <typename T>
inline constexpr int kPacked = 16 / sizeof(T);

// Sixteen bytes as they are, four registers whatever the type; their numbers, four fp32 or eight
// bf16.
template <typename T>
__device__ __forceinline__ uint4 LoadRaw(const T* from) {
  return *reinterpret_cast<const uint4*>(from);
}
__device__ __forceinline__ void Unpack(const uint4& v, float (&values)[4]) {
  values[0] = __uint_as_float(v.x);
  values[1] = __uint_as_float(v.y);
  values[2] = __uint_as_float(v.z);
  values[3] = __uint_as_float(v.w);
}
__device__ __forceinline__ void Unpack(const uint4& v, float (&values)[8]) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = LowBFloat16(pairs[i]);
    values[2 * i + 1] = HighBFloat16(pairs[i]);
  }
}
// The other way; bf16 rounds to nearest even.
__device__ __forceinline__ uint4 Pack(const float (&values)[4]) {
  return make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]),
                    __float_as_uint(values[2]), __float_as_uint(values[3]));
}
__device__ __forceinline__ uint4 Pack(const float (&values)[8]) {
  return make_uint4(PackBFloat16(values[0], values[1]), PackBFloat16(values[2], values[3]),
                    PackBFloat16(values[4], values[5]), PackBFloat16(values[6], values[7]));
}

__device__ __forceinline__ void LoadPacked(const float* from, float (&values)[4]) {
  Unpack(LoadRaw(from), values);
}
__device__ __forceinline__ void LoadPacked(const __nv_bfloat16* from, float (&values)[8]) {
  Unpack(LoadRaw(from), values);
}
// Eight fp32 numbers, for vectors beside packed bf16.
__device__ __forceinline__ void LoadPacked(const float* from, float (&values)[8]) {
  float half[4];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    LoadPacked(from + 4 * h, half);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[4 * h + i] = half[i];
  }
}

__device__ __forceinline__ void StorePacked(float* to, const float (&values)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
}
__device__ __forceinline__ void StorePacked(__nv_bfloat16* to, const float (&values)[8]) {
  *reinterpret_cast<uint4*>(to) = Pack(values);
}
__device__ __forceinline__ void StorePacked(float* to, const float (&values)[8]) {
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
  *reinterpret_cast<float4*>(to + 4) = make_float4(values[4], values[5], values[6], values[7]);
}

// What a number is once it is stored as T.
template <typename T>
__device__ __forceinline__ float Rounded(float value) {
  return static_cast<float>(static_cast<T>(value));
}

// Sums over the block, in a fixed order, to every thread. `scratch` [32] must not be in use; may be
// called again at once with another one.
__device__ __forceinline__ float BlockSum(float value, float* scratch) {
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (unsigned w = 0; w < (blockDim.x + 31) / 32; ++w) sum += scratch[w];
  return sum;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_PACKED_CUH_
