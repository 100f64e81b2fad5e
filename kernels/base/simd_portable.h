// The vectors of simd.h in plain C++: the reference, and what runs on machines without AVX2.
#ifndef HANLIN_KERNELS_BASE_SIMD_PORTABLE_H_
#define HANLIN_KERNELS_BASE_SIMD_PORTABLE_H_

#include <math.h>

#include "kernels/base/types.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

inline constexpr int kTileRows = 4;  // register tile of the GEMM
inline constexpr int kTilePanels = 1;
inline constexpr int kGemvPanels = 1;
inline constexpr int kAttentionRows = 2;    // register tile of the attention scores:
inline constexpr int kAttentionBlocks = 1;  // rows x blocks of 16 tokens

struct F {
  float v[16];
};
struct I {
  uint32_t v[16];
};
struct M {
  bool v[16];
};

template <typename R, typename Fn>
HANLIN_KERNEL_INLINE R Map(Fn fn) {
  R result;
  for (int i = 0; i < 16; ++i) result.v[i] = fn(i);
  return result;
}

HANLIN_KERNEL_INLINE F Set1(float x) {
  return Map<F>([&](int) { return x; });
}
HANLIN_KERNEL_INLINE F Zero() { return Set1(0.0f); }
HANLIN_KERNEL_INLINE F Load(const float* p) {
  return Map<F>([&](int i) { return p[i]; });
}
HANLIN_KERNEL_INLINE F Load(const BFloat16* p) {
  return Map<F>([&](int i) { return ToFloat(p[i]); });
}
HANLIN_KERNEL_INLINE void Store(float* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
HANLIN_KERNEL_INLINE void Store(BFloat16* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = ToBFloat16(a.v[i]);
}
HANLIN_KERNEL_INLINE void Prefetch(const void* p) { __builtin_prefetch(p); }

HANLIN_KERNEL_INLINE F Add(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] + b.v[i]; });
}
HANLIN_KERNEL_INLINE F Sub(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] - b.v[i]; });
}
HANLIN_KERNEL_INLINE F Mul(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] * b.v[i]; });
}
HANLIN_KERNEL_INLINE F Div(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] / b.v[i]; });
}
HANLIN_KERNEL_INLINE F Max(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
HANLIN_KERNEL_INLINE F Min(F a, F b) {
  return Map<F>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
HANLIN_KERNEL_INLINE F Fma(F a, F b, F c) {
  return Map<F>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
HANLIN_KERNEL_INLINE F FusedFma(F a, F b, F c) {
  return Map<F>([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
HANLIN_KERNEL_INLINE M Less(F a, F b) {
  return Map<M>([&](int i) { return a.v[i] < b.v[i]; });
}
HANLIN_KERNEL_INLINE F Select(M m, F a, F b) {
  return Map<F>([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
HANLIN_KERNEL_INLINE M FirstLanes(int n) {
  return Map<M>([&](int i) { return i < n; });
}
HANLIN_KERNEL_INLINE bool All(M m) {
  bool all = true;
  for (bool lane : m.v) all = all && lane;
  return all;
}

HANLIN_KERNEL_INLINE I SetI(uint32_t x) {
  return Map<I>([&](int) { return x; });
}
HANLIN_KERNEL_INLINE I LoadI(const uint32_t* p) {
  return Map<I>([&](int i) { return p[i]; });
}
HANLIN_KERNEL_INLINE void StoreI(uint32_t* p, I a) {
  for (int i = 0; i < 16; ++i) p[i] = a.v[i];
}
HANLIN_KERNEL_INLINE I AddI(I a, I b) {
  return Map<I>([&](int i) { return a.v[i] + b.v[i]; });
}
HANLIN_KERNEL_INLINE I SubI(I a, I b) {
  return Map<I>([&](int i) { return a.v[i] - b.v[i]; });
}
HANLIN_KERNEL_INLINE I XorI(I a, I b) {
  return Map<I>([&](int i) { return a.v[i] ^ b.v[i]; });
}
HANLIN_KERNEL_INLINE I AndI(I a, I b) {
  return Map<I>([&](int i) { return a.v[i] & b.v[i]; });
}
HANLIN_KERNEL_INLINE I MulLow(I a, I b) {
  return Map<I>([&](int i) { return a.v[i] * b.v[i]; });
}
HANLIN_KERNEL_INLINE I MulHigh(I a, I b) {
  return Map<I>([&](int i) { return static_cast<uint32_t>((uint64_t{a.v[i]} * b.v[i]) >> 32); });
}
HANLIN_KERNEL_INLINE I ShiftLeft23(I a) {
  return Map<I>([&](int i) { return a.v[i] << 23; });
}
HANLIN_KERNEL_INLINE I ShiftRight23(I a) {
  return Map<I>([&](int i) { return a.v[i] >> 23; });
}
HANLIN_KERNEL_INLINE F BitsToF(I a) {
  F r;
  memcpy(&r, &a, sizeof(r));
  return r;
}
HANLIN_KERNEL_INLINE I BitsToI(F a) {
  I r;
  memcpy(&r, &a, sizeof(r));
  return r;
}
// Signed integer to float, float to signed integer (nearest even), unsigned integer to float
// (nearest even).
HANLIN_KERNEL_INLINE F SignedToF(I a) {
  return Map<F>([&](int i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
}
HANLIN_KERNEL_INLINE I RoundToI(F a) {
  return Map<I>([&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(lrintf(a.v[i]))); });
}
HANLIN_KERNEL_INLINE F UnsignedToF(I a) {
  return Map<F>([&](int i) { return static_cast<float>(a.v[i]); });
}

HANLIN_KERNEL_INLINE float ReduceAdd(F a) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
  }
  return a.v[0];
}
HANLIN_KERNEL_INLINE float ReduceMax(F a) {
  for (int i = 1; i < 16; ++i) a.v[0] = a.v[0] > a.v[i] ? a.v[0] : a.v[i];
  return a.v[0];
}

// 16 pairs of bf16, the same pair in every lane; acc + first * first + second * second.
HANLIN_KERNEL_INLINE I LoadPairs(const BFloat16* p) {
  I r;
  memcpy(&r, p, sizeof(r));
  return r;
}
HANLIN_KERNEL_INLINE F DotPair(I w, I x, F acc) {
  return Map<F>([&](int i) {
    const float low = ToFloat(BFloat16{static_cast<uint16_t>(w.v[i])}) *
                      ToFloat(BFloat16{static_cast<uint16_t>(x.v[i])});
    const float high = ToFloat(BFloat16{static_cast<uint16_t>(w.v[i] >> 16)}) *
                       ToFloat(BFloat16{static_cast<uint16_t>(x.v[i] >> 16)});
    return (acc.v[i] + low) + high;
  });
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_BASE_SIMD_PORTABLE_H_
