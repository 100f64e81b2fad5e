// The noise of the sampler, defined bit by bit so that CPU, GPU and vocabulary shards draw the same
// token.
//
//   key      = (low 32 bits of seed, high 32 bits of seed)
//   counter  = (id / 64 * 16 + id % 16, low 32 bits of position, high 32 bits of position, choice)
//   r        = word id / 16 % 4 of Philox4x32-10(counter, key), Salmon et al., SC11
//   v        = min(fma(float(r), 2^-32, 2^-33), 1 - 2^-24): uniform in (0, 1), fine near 0
//   y        = 1 - v;  e = -(Log(y) + ((1 - y) - v) / y) = -log(1 - v), exponentially distributed
//   Gumbel   = -Log(e)
//
// So 16 counters give the 64 words of 64 consecutive ids, 16 ids to a word. All steps are IEEE
// fp32, rounded to nearest even, float(r) included; Log is LogPositive of kernels/base/simd_math.h,
// a fixed sequence of fma. Any machine with a correctly rounded fma and division gives the same
// bits. A token's noise depends on nothing but (seed, choice, position, id). Thread-safe: pure
// functions.
#ifndef HANLIN_KERNELS_SAMPLING_PHILOX_H_
#define HANLIN_KERNELS_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

#include "kernels/sampling/sampling_kernels.h"

namespace hanlin {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key,
                                   int rounds = 10);

// The noise of one id, in about [-2.9, 22.9].
float GumbelNoise(const DrawKey& key, int32_t id);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_SAMPLING_PHILOX_H_
