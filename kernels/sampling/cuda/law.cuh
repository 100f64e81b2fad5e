// The arithmetic of the law (kernels/sampling/philox.h, sampling_kernels.h) on the device, the same
// bits as on the CPU. Sources that include this are compiled with -fmad=false: a multiplication and
// an addition become an fma only where the code says so.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_LAW_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_LAW_CUH_

#include <cstdint>

#include "kernels/base/cuda/philox.cuh"

namespace hanlin::law {

constexpr float kLn2High = 0x1.62e4p-1f;
constexpr float kLn2Low = 0x1.7f7d1cp-20f;

// Orders floats as unsigned integers; both zeros are one value. No NaN.
__device__ __forceinline__ uint32_t Ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}
__device__ __forceinline__ float FromOrdered(uint32_t key) {
  return __uint_as_float(key ^ ((key & 0x80000000u) != 0 ? 0x80000000u : 0xffffffffu));
}

// The weight of top-p of x = logit - max.
__device__ __forceinline__ uint32_t Weight(float x) {
  x = fmaxf(x, -30.0f);
  const float shifted = x * 0x1.715476p+0f + 0x1.8p23f;  // the product, rounded to an integer
  const float n = shifted - 0x1.8p23f;
  float r = fmaf(n, -kLn2High, x);
  r = fmaf(n, -kLn2Low, r);
  float q = 0.000198912685101f;
  q = fmaf(q, r, 0.001393390005f);
  q = fmaf(q, r, 0.0083333106746f);
  q = fmaf(q, r, 0.0416664626662f);
  q = fmaf(q, r, 0.166666666819f);
  q = fmaf(q, r, 0.500000001369f);
  const float power = fmaf(r * r, q, r) + 1.0f;
  const float scaled = __uint_as_float(__float_as_uint(power) + (__float_as_uint(shifted) << 23));
  return static_cast<uint32_t>(__float2int_rn(scaled * 0x1p30f));
}

// The four words of Philox4x32-10 for the counter (first, position, choice).
__device__ __forceinline__ void Philox(uint32_t first, uint64_t position, uint32_t choice,
                                       uint64_t seed, uint32_t (&c)[4]) {
  c[0] = first;
  c[1] = static_cast<uint32_t>(position);
  c[2] = static_cast<uint32_t>(position >> 32);
  c[3] = choice;
  Philox4x32(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), c);
}

// LogPositive of kernels/base/simd_math.h.
__device__ __forceinline__ float Log(float x) {
  const uint32_t shifted = __float_as_uint(x) + (0x3f800000u - 0x3f3504f3u);
  const float n = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
  const float f = __uint_as_float((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const float z = f * f;
  float p = 0.0697161147145f;
  p = fmaf(p, f, -0.114797338466f);
  p = fmaf(p, f, 0.116854199235f);
  p = fmaf(p, f, -0.124256873315f);
  p = fmaf(p, f, 0.142490576457f);
  p = fmaf(p, f, -0.166678023195f);
  p = fmaf(p, f, 0.200007157489f);
  p = fmaf(p, f, -0.24999996958f);
  p = fmaf(p, f, 0.3333333118f);
  float q = (p * f) * z;
  q = fmaf(-0.5f, z, q);
  q = fmaf(n, kLn2Low, q);
  return fmaf(n, kLn2High, f + q);
}

// Uniform in (0, 1) from a random word.
__device__ __forceinline__ float Uniform(uint32_t word) {
  return fminf(fmaf(__uint2float_rn(word), 0x1p-32f, 0x1p-33f), 1.0f - 0x1p-24f);
}

// Gumbel noise of Uniform's v.
__device__ __forceinline__ float Gumbel(float v) {
  const float y = 1.0f - v;
  const float lost = (1.0f - y) - v;
  return -Log(-(Log(y) + lost / y));
}

// Noise of a single id.
__device__ __forceinline__ float Noise(uint32_t id, uint64_t position, uint32_t choice,
                                       uint64_t seed) {
  uint32_t words[4];
  Philox(id / 64 * 16 + id % 16, position, choice, seed, words);
  const uint32_t w = id / 16 % 4;
  return Gumbel(Uniform(w == 0 ? words[0] : w == 1 ? words[1] : w == 2 ? words[2] : words[3]));
}

}  // namespace hanlin::law

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_LAW_CUH_
