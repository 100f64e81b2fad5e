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

// 32 elements as pairs, zeros behind `count`.
HANLIN_KERNEL_INLINE I LoadRounded(const float* p, int64_t count) {
  return JoinPairs(LoadUpTo(p, count), LoadUpTo(p + kLanes, count - kLanes));
}
HANLIN_KERNEL_INLINE I LoadRounded(const BFloat16* p, int64_t count) {
  if (count >= 2 * kLanes) return LoadPairs(p);
  BFloat16 buffer[2 * kLanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return LoadPairs(buffer);
}

// Pair i: even[i] before odd[i]; zeros behind the given numbers of elements.
HANLIN_KERNEL_INLINE I LoadZipped(const float* even, int64_t evens, const float* odd,
                                  int64_t odds) {
  return ZipPairs(LoadUpTo(even, evens), LoadUpTo(odd, odds));
}
HANLIN_KERNEL_INLINE I LoadZipped(const BFloat16* even, int64_t evens, const BFloat16* odd,
                                  int64_t odds) {
  if (evens >= kLanes && odds >= kLanes) return ZipPairs(even, odd);
  BFloat16 first[kLanes] = {}, second[kLanes] = {};
  for (int64_t i = 0; i < evens && i < kLanes; ++i) first[i] = even[i];
  for (int64_t i = 0; i < odds && i < kLanes; ++i) second[i] = odd[i];
  return ZipPairs(first, second);
}

// Step `step` of 16 lines from `line` on.
template <typename From>
HANLIN_KERNEL_INLINE I LoadStep(const MatMulPack<BFloat16>& pack, int64_t step, int64_t line) {
  const int64_t k = 2 * step;
  const From* const even = static_cast<const From*>(pack.from) + k * pack.stride + line;
  const int64_t lines = pack.lines - line;
  return LoadZipped(even, k < pack.k ? lines : 0, even + pack.stride, k + 1 < pack.k ? lines : 0);
}

template <typename From>
HANLIN_KERNEL_INLINE void PackPairsOfK(const MatMulPack<BFloat16>& pack) {
  auto* to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t step = 0; step < pack.steps; ++step, to += pack.width) {
    for (int64_t line = 0; line < pack.width; line += kLanes) {
      StoreI(to + line, LoadStep<From>(pack, step, line));
    }
  }
}

template <typename From>
HANLIN_KERNEL_INLINE void PackPairsOfLines(const MatMulPack<BFloat16>& pack) {
  auto* const to = reinterpret_cast<uint32_t*>(pack.panel);
  const From* const from = static_cast<const From*>(pack.from);
  for (int64_t line = 0; line < pack.width; line += kLanes) {
    for (int64_t step = 0; step < pack.steps; step += kLanes) {
      I pairs[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t count = line + i < pack.lines ? pack.k - 2 * step : 0;
        pairs[i] = LoadRounded(from + (line + i) * pack.stride + 2 * step, count);
      }
      Transpose(pairs);
      for (int i = 0; i < kLanes && step + i < pack.steps; ++i) {
        StoreI(to + (step + i) * pack.width + line, pairs[i]);
      }
    }
  }
}

constexpr uint32_t kOnes = 0x3f803f80;  // a pair

template <typename From>
HANLIN_KERNEL_INLINE void PackPairsOfRows(const MatMulPack<BFloat16>& pack) {
  auto* const to = reinterpret_cast<uint32_t*>(pack.panel);
  for (int64_t step = 0; step < pack.steps; step += kLanes) {
    for (int64_t line = 0; line < pack.lines; line += kLanes) {
      I pairs[kLanes];
      for (int i = 0; i < kLanes; ++i) pairs[i] = LoadStep<From>(pack, step + i, line);
      if (pack.sums != nullptr) {
        F sum = Load(pack.sums + line);
        for (int i = 0; i < kLanes; ++i) sum = DotPair(pairs[i], SetI(kOnes), sum);
        Store(pack.sums + line, sum);
      }
      Transpose(pairs);
      for (int i = 0; i < kLanes; ++i) StoreI(to + (line + i) * pack.width + step, pairs[i]);
    }
  }
}

// MatMulKernelsOf<BFloat16>::pack_k.
HANLIN_KERNEL_INLINE void PackPairsOfK(const MatMulPack<BFloat16>& pack) {
  pack.from_type == ComputeType::kFloat32 ? PackPairsOfK<float>(pack)
                                          : PackPairsOfK<BFloat16>(pack);
}

// MatMulKernelsOf<BFloat16>::pack_lines.
HANLIN_KERNEL_INLINE void PackPairsOfLines(const MatMulPack<BFloat16>& pack) {
  pack.from_type == ComputeType::kFloat32 ? PackPairsOfLines<float>(pack)
                                          : PackPairsOfLines<BFloat16>(pack);
}

// MatMulKernelsOf<BFloat16>::pack_rows.
HANLIN_KERNEL_INLINE void PackPairsOfRows(const MatMulPack<BFloat16>& pack) {
  pack.from_type == ComputeType::kFloat32 ? PackPairsOfRows<float>(pack)
                                          : PackPairsOfRows<BFloat16>(pack);
}

// MatMulKernelsOf<BFloat16>::round.
HANLIN_KERNEL_INLINE void RoundRow(const float* from, int64_t k, BFloat16* to) {
  for (int64_t i = 0; i < k; i += 2 * kLanes) {
    StoreI(reinterpret_cast<uint32_t*>(to + i), LoadRounded(from + i, k - i));
  }
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_PACK_H_
