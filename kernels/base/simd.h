// Vectors of 16 floats (F), 16 32-bit integers (I) and 16 booleans (M) for the kernels, in one of
// four forms.
//
// A kernel source file is compiled once per instruction set (cmake/kernels.cmake) with
// HANLIN_SIMD_NAMESPACE and one of HANLIN_SIMD_{PORTABLE,AVX2,AVX512,AVX512BF16,AMX} defined, and
// puts all its code into that namespace: no two copies of a function share a name. Such files must
// not include headers with inline functions of external linkage (no C++ library), lest the linker
// keep a copy with instructions that the machine lacks.
//
// Fma may round twice in the portable form; FusedFma never does. All other operations give the same
// bits in every form, except DotPair (the order inside a pair) and the horizontal sums;
// denormals may count as zeros in DotPair, ZipPairs and JoinPairs.
#ifndef HANLIN_KERNELS_BASE_SIMD_H_
#define HANLIN_KERNELS_BASE_SIMD_H_

#include "kernels/base/types.h"

#if defined(HANLIN_SIMD_AMX)  // adds tiles, for kernels that use them
#define HANLIN_SIMD_AVX512BF16 1
#endif

#if defined(HANLIN_SIMD_PORTABLE)
#include "kernels/base/simd_portable.h"
#elif defined(HANLIN_SIMD_AVX2)
#include "kernels/base/simd_avx2.h"
#else
#include "kernels/base/simd_avx512.h"
#endif

namespace hanlin::HANLIN_SIMD_NAMESPACE {

inline constexpr int kLanes = 16;

// The first n (0 to 16) floats, zeros behind them.
HANLIN_KERNEL_INLINE F LoadFirst(const float* p, int n) {
  float buffer[kLanes] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return Load(buffer);
}
HANLIN_KERNEL_INLINE F LoadFirst(const BFloat16* p, int n) {
  float buffer[kLanes] = {};
  for (int i = 0; i < n; ++i) buffer[i] = ToFloat(p[i]);
  return Load(buffer);
}
HANLIN_KERNEL_INLINE void StoreFirst(float* p, F v, int n) {
  float buffer[kLanes];
  Store(buffer, v);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}
HANLIN_KERNEL_INLINE void StoreFirst(BFloat16* p, F v, int n) {
  BFloat16 buffer[kLanes];
  Store(buffer, v);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}

#if defined(HANLIN_SIMD_PORTABLE) || defined(HANLIN_SIMD_AVX2)
// Lane j of rows[i] and lane i of rows[j] change places.
HANLIN_KERNEL_INLINE void Transpose(I rows[16]) {
  uint32_t from[16][16];
  for (int i = 0; i < 16; ++i) StoreI(from[i], rows[i]);
  for (int i = 0; i < 16; ++i) {
    uint32_t column[16];
    for (int j = 0; j < 16; ++j) column[j] = from[j][i];
    rows[i] = LoadI(column);
  }
}

// Pair i: even[i] before odd[i].
HANLIN_KERNEL_INLINE I ZipPairs(const BFloat16* even, const BFloat16* odd) {
  uint32_t pairs[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    pairs[i] = even[i].bits | static_cast<uint32_t>(odd[i].bits) << 16;
  }
  return LoadI(pairs);
}
#endif

#if !defined(HANLIN_SIMD_AVX512BF16)  // which has instructions for them
// Pair i: even's lane i before odd's, rounded to bf16.
HANLIN_KERNEL_INLINE I ZipPairs(F even, F odd) {
  BFloat16 first[kLanes], second[kLanes];
  Store(first, even);
  Store(second, odd);
  uint32_t pairs[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    pairs[i] = first[i].bits | static_cast<uint32_t>(second[i].bits) << 16;
  }
  return LoadI(pairs);
}
// The lanes of `first` as 8 pairs, behind them those of `second`, rounded to bf16.
HANLIN_KERNEL_INLINE I JoinPairs(F first, F second) {
  BFloat16 values[2 * kLanes];
  Store(values, first);
  Store(values + kLanes, second);
  return LoadPairs(values);
}
#endif

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_BASE_SIMD_H_
