// One step of a product's chain over k, for the register tiles of linear_simd.cc and
// matmul_simd.cc: an operand of 32 bits a lane, which is one k in fp32 and a pair of k in bf16.
// To be included by files that are compiled once per instruction set (see simd.h).
#ifndef HANLIN_KERNELS_GEMM_CPU_STEP_H_
#define HANLIN_KERNELS_GEMM_CPU_STEP_H_

#include "kernels/base/simd.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

template <typename T>
struct Step;
template <>
struct Step<float> {
  static constexpr int64_t kK = 1;
  using Operand = F;
  HANLIN_KERNEL_INLINE F Weights(const float* p) { return Load(p); }
  HANLIN_KERNEL_INLINE F Broadcast(const float* p) { return Set1(*p); }
  HANLIN_KERNEL_INLINE F BroadcastLast(const float* p) { return Set1(*p); }
  HANLIN_KERNEL_INLINE F Dot(F w, F x, F acc) { return Fma(w, x, acc); }
};
template <>
struct Step<BFloat16> {
  static constexpr int64_t kK = 2;
  using Operand = I;
  HANLIN_KERNEL_INLINE I Weights(const BFloat16* p) { return LoadPairs(p); }
  HANLIN_KERNEL_INLINE I Broadcast(const BFloat16* p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof(pair));
    return SetI(pair);
  }
  // An odd k ends with half a pair.
  HANLIN_KERNEL_INLINE I BroadcastLast(const BFloat16* p) { return SetI(p->bits); }
  HANLIN_KERNEL_INLINE F Dot(I w, I x, F acc) { return DotPair(w, x, acc); }
};

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_GEMM_CPU_STEP_H_
