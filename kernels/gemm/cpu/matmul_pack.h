// How matmul.h's operands are rounded and laid out, for the kernels of matmul_simd.cc and
// matmul_amx.cc. To be included by files that are compiled once per instruction set (see simd.h).
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_PACK_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_PACK_H_

#include "kernels/base/simd.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

// Zeros where the row ends, or when count < 1.
HANLIN_KERNEL_INLINE F LoadUpTo(const float* p, int64_t count) {
  return count >= kLanes ? Load(p) : count > 0 ? LoadFirst(p, static_cast<int>(count)) : Zero();
}

// 32 elements as pairs.
HANLIN_KERNEL_INLINE I RoundedPairs(const float* p, int64_t count) {
  return JoinPairs(LoadUpTo(p, count), LoadUpTo(p + kLanes, count - kLanes));
}

// Step `step` of 16 lines, of which `lines` exist.
HANLIN_KERNEL_INLINE I ZippedPairs(const MatMulPack<BFloat16>& pack, int64_t step, int64_t line) {
  const int64_t k = 2 * step;
  const float* const even = pack.from + k * pack.stride + line;
  const int64_t lines = pack.lines - line;
  return ZipPairs(LoadUpTo(even, k < pack.k ? lines : 0),
                  LoadUpTo(even + pack.stride, k + 1 < pack.k ? lines : 0));
}

// MatMulKernelsOf<BFloat16>::pack_k.
HANLIN_KERNEL_INLINE void PackPairsOfK(const MatMulPack<BFloat16>& pack) {
  auto* to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t step = 0; step < pack.steps; ++step, to += pack.width) {
    for (int64_t line = 0; line < pack.width; line += kLanes) {
      StoreI(to + line, ZippedPairs(pack, step, line));
    }
  }
}

// MatMulKernelsOf<BFloat16>::pack_lines.
HANLIN_KERNEL_INLINE void PackPairsOfLines(const MatMulPack<BFloat16>& pack) {
  auto* const to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t line = 0; line < pack.width; line += kLanes) {
    for (int64_t step = 0; step < pack.steps; step += kLanes) {
      I pairs[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t k = line + i < pack.lines ? pack.k - 2 * step : 0;
        pairs[i] = RoundedPairs(pack.from + (line + i) * pack.stride + 2 * step, k);
      }
      Transpose(pairs);
      for (int i = 0; i < kLanes && step + i < pack.steps; ++i) {
        StoreI(to + (step + i) * pack.width + line, pairs[i]);
      }
    }
  }
}

// MatMulKernelsOf<BFloat16>::round.
HANLIN_KERNEL_INLINE void RoundRow(const float* from, int64_t k, BFloat16* to) {
  for (int64_t i = 0; i < k; i += 2 * kLanes) {
    StoreI(reinterpret_cast<uint32_t*>(to + i), RoundedPairs(from + i, k - i));
  }
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_PACK_H_
