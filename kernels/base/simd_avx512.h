// The vectors of simd.h on AVX-512 (F, BW, DQ, VL), with vdpbf16ps where HANLIN_SIMD_AVX512BF16 is
// defined.
#ifndef HANLIN_KERNELS_BASE_SIMD_AVX512_H_
#define HANLIN_KERNELS_BASE_SIMD_AVX512_H_

#include <immintrin.h>

#include "kernels/base/types.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

inline constexpr int kTileRows = 6;  // 6 x 4 accumulators + 4 weights + broadcasts of 32 registers
inline constexpr int kTilePanels = 4;
inline constexpr int kGemvPanels = 4;
inline constexpr int kAttentionRows = 8;    // register tile of the attention scores:
inline constexpr int kAttentionBlocks = 2;  // rows x blocks of 16 tokens

using F = __m512;
using I = __m512i;
using M = __mmask16;

HANLIN_KERNEL_INLINE F Set1(float x) { return _mm512_set1_ps(x); }
HANLIN_KERNEL_INLINE F Zero() { return _mm512_setzero_ps(); }
HANLIN_KERNEL_INLINE F Load(const float* p) { return _mm512_loadu_ps(p); }
HANLIN_KERNEL_INLINE F Load(const BFloat16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
HANLIN_KERNEL_INLINE void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
HANLIN_KERNEL_INLINE void Store(BFloat16* p, F a) {
  // Integer rounding, because vcvtneps2bf16 flushes denormals; NaN keeps its upper half, made
  // quiet.
  const I bits = _mm512_castps_si512(a);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const I rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const I quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const M nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const I result = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
}
HANLIN_KERNEL_INLINE void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

HANLIN_KERNEL_INLINE F Add(F a, F b) { return _mm512_add_ps(a, b); }
HANLIN_KERNEL_INLINE F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
HANLIN_KERNEL_INLINE F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
HANLIN_KERNEL_INLINE F Div(F a, F b) { return _mm512_div_ps(a, b); }
HANLIN_KERNEL_INLINE F Max(F a, F b) { return _mm512_max_ps(a, b); }
HANLIN_KERNEL_INLINE F Min(F a, F b) { return _mm512_min_ps(a, b); }
HANLIN_KERNEL_INLINE F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
HANLIN_KERNEL_INLINE F FusedFma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
HANLIN_KERNEL_INLINE M Less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
HANLIN_KERNEL_INLINE F Select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
HANLIN_KERNEL_INLINE M FirstLanes(int n) { return static_cast<M>((1u << n) - 1u); }
HANLIN_KERNEL_INLINE bool All(M m) { return m == 0xffff; }

HANLIN_KERNEL_INLINE I SetI(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
HANLIN_KERNEL_INLINE I LoadI(const uint32_t* p) { return _mm512_loadu_si512(p); }
HANLIN_KERNEL_INLINE void StoreI(uint32_t* p, I a) { _mm512_storeu_si512(p, a); }
HANLIN_KERNEL_INLINE I AddI(I a, I b) { return _mm512_add_epi32(a, b); }
HANLIN_KERNEL_INLINE I SubI(I a, I b) { return _mm512_sub_epi32(a, b); }
HANLIN_KERNEL_INLINE I XorI(I a, I b) { return _mm512_xor_si512(a, b); }
HANLIN_KERNEL_INLINE I AndI(I a, I b) { return _mm512_and_si512(a, b); }
HANLIN_KERNEL_INLINE I MulLow(I a, I b) { return _mm512_mullo_epi32(a, b); }
HANLIN_KERNEL_INLINE I MulHigh(I a, I b) {
  const I even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
  const I odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}
HANLIN_KERNEL_INLINE I ShiftLeft23(I a) { return _mm512_slli_epi32(a, 23); }
HANLIN_KERNEL_INLINE I ShiftRight23(I a) { return _mm512_srli_epi32(a, 23); }
HANLIN_KERNEL_INLINE F BitsToF(I a) { return _mm512_castsi512_ps(a); }
HANLIN_KERNEL_INLINE I BitsToI(F a) { return _mm512_castps_si512(a); }
HANLIN_KERNEL_INLINE F SignedToF(I a) { return _mm512_cvtepi32_ps(a); }
HANLIN_KERNEL_INLINE I RoundToI(F a) { return _mm512_cvtps_epi32(a); }
HANLIN_KERNEL_INLINE F UnsignedToF(I a) { return _mm512_cvtepu32_ps(a); }

HANLIN_KERNEL_INLINE float ReduceAdd(F a) { return _mm512_reduce_add_ps(a); }
HANLIN_KERNEL_INLINE float ReduceMax(F a) { return _mm512_reduce_max_ps(a); }

// Moves the 16 bits of lane i, then those of lane 16 + i, to lanes 2 i and 2 i + 1.
HANLIN_KERNEL_INLINE I ZipOrder() {
  return _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                          6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
}

// Lane j of rows[i] and lane i of rows[j] change places.
HANLIN_KERNEL_INLINE void Transpose(I rows[16]) {
  I pairs[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const I low0 = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const I low1 = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const I high0 = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const I high1 = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    pairs[i] = _mm512_unpacklo_epi64(low0, low1);
    pairs[i + 1] = _mm512_unpackhi_epi64(low0, low1);
    pairs[i + 2] = _mm512_unpacklo_epi64(high0, high1);
    pairs[i + 3] = _mm512_unpackhi_epi64(high0, high1);
  }
  // Now quarter q of pairs[4 b + c] is what rows 4 b to 4 b + 3 hold in column 4 q + c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const I even0 = _mm512_shuffle_i32x4(pairs[c], pairs[4 + c], 0x88);
    const I odd0 = _mm512_shuffle_i32x4(pairs[c], pairs[4 + c], 0xdd);
    const I even1 = _mm512_shuffle_i32x4(pairs[8 + c], pairs[12 + c], 0x88);
    const I odd1 = _mm512_shuffle_i32x4(pairs[8 + c], pairs[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
    rows[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
    rows[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    rows[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
}

HANLIN_KERNEL_INLINE I LoadPairs(const BFloat16* p) { return _mm512_loadu_si512(p); }
HANLIN_KERNEL_INLINE I ZipPairs(const BFloat16* even, const BFloat16* odd) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(even));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd));
  return _mm512_permutexvar_epi16(ZipOrder(),
                                  _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
}
#if defined(HANLIN_SIMD_AVX512BF16)
HANLIN_KERNEL_INLINE F DotPair(I w, I x, F acc) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}
HANLIN_KERNEL_INLINE I JoinPairs(F first, F second) {
  return reinterpret_cast<I>(_mm512_cvtne2ps_pbh(second, first));
}
HANLIN_KERNEL_INLINE I ZipPairs(F even, F odd) {
  return _mm512_permutexvar_epi16(ZipOrder(), JoinPairs(even, odd));
}
#else
HANLIN_KERNEL_INLINE F DotPair(I w, I x, F acc) {
  const I upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)),
                        _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), acc);
  return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(w, upper)),
                         _mm512_castsi512_ps(_mm512_and_si512(x, upper)), acc);
}
#endif

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_BASE_SIMD_AVX512_H_
