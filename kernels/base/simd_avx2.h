// The vectors of simd.h as pairs of AVX2 registers, with FMA.
#ifndef HANLIN_KERNELS_BASE_SIMD_AVX2_H_
#define HANLIN_KERNELS_BASE_SIMD_AVX2_H_

#include <immintrin.h>

#include "kernels/base/types.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

inline constexpr int kTileRows = 3;  // 3 x 2 pairs of accumulators of 16 registers
inline constexpr int kTilePanels = 2;
inline constexpr int kGemvPanels = 4;
inline constexpr int kAttentionRows = 4;    // register tile of the attention scores:
inline constexpr int kAttentionBlocks = 1;  // rows x blocks of 16 tokens

struct F {
  __m256 lo, hi;
};
struct I {
  __m256i lo, hi;
};
using M = F;  // all bits of a lane set or clear

HANLIN_KERNEL_INLINE F Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
HANLIN_KERNEL_INLINE F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
HANLIN_KERNEL_INLINE F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
HANLIN_KERNEL_INLINE __m256 Widen(__m128i half) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
HANLIN_KERNEL_INLINE F Load(const BFloat16* p) {
  return {Widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          Widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
HANLIN_KERNEL_INLINE void Store(float* p, F a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
HANLIN_KERNEL_INLINE __m256i RoundToUpperHalf(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan)), 16);
}
HANLIN_KERNEL_INLINE void Store(BFloat16* p, F a) {
  const __m256i packed = _mm256_packus_epi32(RoundToUpperHalf(a.lo), RoundToUpperHalf(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
HANLIN_KERNEL_INLINE void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

HANLIN_KERNEL_INLINE F Add(F a, F b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F Sub(F a, F b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F Mul(F a, F b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F Div(F a, F b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F Max(F a, F b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F Min(F a, F b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE F FusedFma(F a, F b, F c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
HANLIN_KERNEL_INLINE F Fma(F a, F b, F c) { return FusedFma(a, b, c); }
HANLIN_KERNEL_INLINE M Less(F a, F b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
HANLIN_KERNEL_INLINE F Select(M m, F a, F b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
HANLIN_KERNEL_INLINE M FirstLanes(int n) {
  const __m256i count = _mm256_set1_epi32(n);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {
      _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lane)),
      _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8))))};
}
HANLIN_KERNEL_INLINE bool All(M m) {
  return _mm256_movemask_ps(m.lo) == 0xff && _mm256_movemask_ps(m.hi) == 0xff;
}

HANLIN_KERNEL_INLINE I SetI(uint32_t x) {
  return {_mm256_set1_epi32(static_cast<int>(x)), _mm256_set1_epi32(static_cast<int>(x))};
}
HANLIN_KERNEL_INLINE I LoadI(const uint32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
HANLIN_KERNEL_INLINE void StoreI(uint32_t* p, I a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
}
HANLIN_KERNEL_INLINE I AddI(I a, I b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE I SubI(I a, I b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE I XorI(I a, I b) {
  return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE I AndI(I a, I b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE I MulLow(I a, I b) {
  return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
HANLIN_KERNEL_INLINE __m256i MulHigh(__m256i a, __m256i b) {
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  return _mm256_blend_epi32(even, odd, 0xaa);
}
HANLIN_KERNEL_INLINE I MulHigh(I a, I b) { return {MulHigh(a.lo, b.lo), MulHigh(a.hi, b.hi)}; }
HANLIN_KERNEL_INLINE I ShiftLeft23(I a) {
  return {_mm256_slli_epi32(a.lo, 23), _mm256_slli_epi32(a.hi, 23)};
}
HANLIN_KERNEL_INLINE I ShiftRight23(I a) {
  return {_mm256_srli_epi32(a.lo, 23), _mm256_srli_epi32(a.hi, 23)};
}
HANLIN_KERNEL_INLINE F BitsToF(I a) {
  return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
HANLIN_KERNEL_INLINE I BitsToI(F a) {
  return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)};
}
HANLIN_KERNEL_INLINE F SignedToF(I a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
HANLIN_KERNEL_INLINE I RoundToI(F a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
HANLIN_KERNEL_INLINE __m256 UnsignedToF(__m256i a) {
  // Both halves are exact, so the one rounding is that of the fma.
  const __m256 upper = _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 16));
  const __m256 lower = _mm256_cvtepi32_ps(_mm256_and_si256(a, _mm256_set1_epi32(0xffff)));
  return _mm256_fmadd_ps(upper, _mm256_set1_ps(65536.0f), lower);
}
HANLIN_KERNEL_INLINE F UnsignedToF(I a) { return {UnsignedToF(a.lo), UnsignedToF(a.hi)}; }

HANLIN_KERNEL_INLINE float ReduceAdd(F a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
HANLIN_KERNEL_INLINE float ReduceMax(F a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

HANLIN_KERNEL_INLINE I LoadPairs(const BFloat16* p) {
  return LoadI(reinterpret_cast<const uint32_t*>(p));
}
HANLIN_KERNEL_INLINE __m256 DotPair(__m256i w, __m256i x, __m256 acc) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  acc = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w, 16)),
                        _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), acc);
  return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w, upper)),
                         _mm256_castsi256_ps(_mm256_and_si256(x, upper)), acc);
}
HANLIN_KERNEL_INLINE F DotPair(I w, I x, F acc) {
  return {DotPair(w.lo, x.lo, acc.lo), DotPair(w.hi, x.hi, acc.hi)};
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_BASE_SIMD_AVX2_H_
