// exp, log, GELU on the vectors of simd.h: polynomials in a fixed order of operations, so a lane's
// result depends on its input alone. Coefficients: Chebyshev fits computed for these intervals; the
// error of each fit is below fp32's epsilon.
#ifndef HANLIN_KERNELS_BASE_SIMD_MATH_H_
#define HANLIN_KERNELS_BASE_SIMD_MATH_H_

#include "kernels/base/simd.h"

namespace hanlin::HANLIN_SIMD_NAMESPACE {

// ln 2 in two parts, the first with 9 trailing zero bits: exponent * kLn2High is exact.
inline constexpr float kLn2High = 0x1.62e4p-1f;
inline constexpr float kLn2Low = 0x1.7f7d1cp-20f;

// e^x, exactly 1 at 0 and exactly 0 below -87.3 (also for -infinity); x above 88.3 is taken
// as 88.3. e^r = 1 + r + r^2 Q(r) for r = x - n ln 2, |r| <= ln 2 / 2.
HANLIN_KERNEL_INLINE F Exp(F x) {
  const M underflow = Less(x, Set1(-87.3f));
  x = Min(Max(x, Set1(-87.3f)), Set1(88.3f));
  const I n = RoundToI(Mul(x, Set1(0x1.715476p+0f)));
  const F nf = SignedToF(n);
  F r = Fma(nf, Set1(-kLn2High), x);
  r = Fma(nf, Set1(-kLn2Low), r);
  F q = Set1(0.000198912685101f);
  q = Fma(q, r, Set1(0.001393390005f));
  q = Fma(q, r, Set1(0.0083333106746f));
  q = Fma(q, r, Set1(0.0416664626662f));
  q = Fma(q, r, Set1(0.166666666819f));
  q = Fma(q, r, Set1(0.500000001369f));
  const F power = Add(Fma(Mul(r, r), q, r), Set1(1.0f));
  const F scaled = BitsToF(AddI(BitsToI(power), ShiftLeft23(n)));
  return Select(underflow, Zero(), scaled);
}

// ln x of a positive normal x, the same bits under every instruction set (philox.h relies on it):
// x = 2^n m with m in [sqrt(1/2), sqrt(2)), f = m - 1, ln x = n ln 2 + f - f^2 / 2 + f^3 P(f).
HANLIN_KERNEL_INLINE F LogPositive(F x) {
  const uint32_t kSqrtHalf = 0x3f3504f3u;
  const uint32_t kOne = 0x3f800000u;
  const I shifted = AddI(BitsToI(x), SetI(kOne - kSqrtHalf));
  const F n = SignedToF(SubI(ShiftRight23(shifted), SetI(127)));
  const F m = BitsToF(AddI(AndI(shifted, SetI(0x7fffffu)), SetI(kSqrtHalf)));
  const F f = Sub(m, Set1(1.0f));
  const F z = Mul(f, f);
  F p = Set1(0.0697161147145f);
  p = FusedFma(p, f, Set1(-0.114797338466f));
  p = FusedFma(p, f, Set1(0.116854199235f));
  p = FusedFma(p, f, Set1(-0.124256873315f));
  p = FusedFma(p, f, Set1(0.142490576457f));
  p = FusedFma(p, f, Set1(-0.166678023195f));
  p = FusedFma(p, f, Set1(0.200007157489f));
  p = FusedFma(p, f, Set1(-0.24999996958f));
  p = FusedFma(p, f, Set1(0.3333333118f));
  F q = Mul(Mul(p, f), z);
  q = FusedFma(Set1(-0.5f), z, q);
  q = FusedFma(n, Set1(kLn2Low), q);
  return FusedFma(n, Set1(kLn2High), Add(f, q));
}

// 0.5 x (1 + tanh u) with u = 0.79788456 x (1 + 0.044715 x^2), written as x / (1 + e^(-2u)).
HANLIN_KERNEL_INLINE F GeluTanh(F x) {
  const F inner = Fma(Mul(x, x), Set1(0.044715f), Set1(1.0f));
  const F u = Mul(Mul(x, Set1(0.79788456f)), inner);
  return Div(x, Add(Set1(1.0f), Exp(Mul(u, Set1(-2.0f)))));
}

// 1 + erf(x / sqrt 2), twice the normal distribution's cdf; `bell` becomes e^(-x^2 / 2). erfc(a) =
// e^(-a^2) t (a1 + t (a2 + ...)), t = 1 / (1 + p a) for a >= 0, absolute error 1.5e-7 (Abramowitz
// and Stegun 7.1.26).
HANLIN_KERNEL_INLINE F TwiceNormalCdf(F x, F* bell) {
  const F scaled = Mul(x, Set1(0.70710678f));
  const F a = Max(scaled, Sub(Zero(), scaled));
  const F t = Div(Set1(1.0f), Fma(a, Set1(0.3275911f), Set1(1.0f)));
  F p = Set1(1.061405429f);
  p = Fma(p, t, Set1(-1.453152027f));
  p = Fma(p, t, Set1(1.421413741f));
  p = Fma(p, t, Set1(-0.284496736f));
  p = Fma(p, t, Set1(0.254829592f));
  *bell = Exp(Sub(Zero(), Mul(a, a)));
  const F tail = Mul(Mul(p, t), *bell);  // erfc(a)
  return Select(Less(x, Zero()), tail, Sub(Set1(2.0f), tail));
}

// 0.5 x (1 + erf(x / sqrt 2)).
HANLIN_KERNEL_INLINE F GeluErf(F x) {
  F bell;
  const F twice_cdf = TwiceNormalCdf(x, &bell);
  return Mul(Mul(Set1(0.5f), x), twice_cdf);
}

// The derivative of GeluTanh; with s = 1 / (1 + e^(-2u)) it is s + 2 x s (1 - s) u'.
HANLIN_KERNEL_INLINE F GeluTanhDerivative(F x) {
  const F one = Set1(1.0f);
  const F square = Mul(x, x);
  const F u = Mul(Mul(x, Set1(0.79788456f)), Fma(square, Set1(0.044715f), one));
  const F du = Mul(Set1(0.79788456f), Fma(square, Set1(3 * 0.044715f), one));
  const F s = Div(one, Add(one, Exp(Mul(u, Set1(-2.0f)))));
  const F slope = Mul(Mul(x, s), Mul(Sub(one, s), Mul(Set1(2.0f), du)));
  return Add(s, slope);
}

// The derivative of GeluErf, Phi(x) + x phi(x).
HANLIN_KERNEL_INLINE F GeluErfDerivative(F x) {
  F bell;
  const F cdf = Mul(Set1(0.5f), TwiceNormalCdf(x, &bell));
  return Fma(Mul(x, Set1(0.39894228f)), bell, cdf);
}

}  // namespace hanlin::HANLIN_SIMD_NAMESPACE

#endif  // HANLIN_KERNELS_BASE_SIMD_MATH_H_
