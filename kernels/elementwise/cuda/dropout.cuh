// Dropout's mask on the device, the one of kernels/elementwise/cpu/elementwise.h bit by bit. A
// kernel takes a DropoutLaw, made on the host; one counter decides about the pairs of columns from
// c, c + 16, c + 32 and c + 48 on of a group of 64.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_DROPOUT_CUH_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_DROPOUT_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/base/cuda/philox.cuh"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

struct DropoutLaw {
  uint32_t key0, key1;
  uint32_t step, site;
  uint32_t addend;  // to the 15 bits of each half of a word: carries into bit 15 where it is kept
  float scale;      // of what is kept
};

inline DropoutLaw MakeDropoutLaw(const DropoutParams& p) {
  const auto threshold = static_cast<uint32_t>(std::ceil(p.rate * 32768.0f));  // exact
  return {static_cast<uint32_t>(p.seed),
          static_cast<uint32_t>(p.seed >> 32),
          p.step,
          p.site,
          (32768 - threshold) * 0x10001u,
          1.0f / (1.0f - p.rate)};
}

// What becomes of the columns `column` + 16 w and the next, w from 0 to 3, where column % 64 is
// even and below 16: they are kept where bits 15 and 31 of decisions[w] are set; the other bits
// mean nothing.
__device__ __forceinline__ void DropoutDecisions(const DropoutLaw& law, uint32_t row,
                                                 uint32_t column, uint32_t (&decisions)[4]) {
  decisions[0] = column / 64 * 8 + column % 16 / 2;
  decisions[1] = row;
  decisions[2] = law.site;
  decisions[3] = law.step;
  Philox4x32<7>(law.key0, law.key1, decisions);
#pragma unroll
  for (uint32_t& word : decisions) word = (word & 0x7fff7fffu) + law.addend;
}

// A decision as bits 0 and 1.
__device__ __forceinline__ uint32_t KeptPair(uint32_t decision) {
  return (decision >> 15 & 1) | (decision >> 30 & 2);
}
// A decision as the mask of two values of 16 bits.
__device__ __forceinline__ uint32_t KeptHalves(uint32_t decision) {
  uint32_t mask;
  asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(mask) : "r"(decision));  // repeats the signs of bytes
  return mask;
}

// The decision about `column`, an even one, and the next.
__device__ __forceinline__ uint32_t DropoutDecision(const DropoutLaw& law, uint32_t row,
                                                    uint32_t column) {
  uint32_t words[4];
  DropoutDecisions(law, row, column / 64 * 64 + column % 16, words);
  const uint32_t w = column / 16 % 4;
  return w == 0 ? words[0] : w == 1 ? words[1] : w == 2 ? words[2] : words[3];
}

__device__ __forceinline__ bool DropoutKeeps(const DropoutLaw& law, uint32_t row, uint32_t column) {
  return (KeptPair(DropoutDecision(law, row, column / 2 * 2)) >> column % 2 & 1) != 0;
}

// Which of the kSize (4 or 8) elements from `column` on, a multiple of kSize, are kept: bit i is
// that of column + i. With `together`, neighbouring lanes hold neighbouring packs of a row, a group
// of 64 columns begins at a lane that 64 / kSize divides, and all its lanes call: they share out
// the 8 counters that they have in common.
template <int kSize>
__device__ __forceinline__ uint32_t DropoutMask(const DropoutLaw& law, uint32_t row,
                                                uint32_t column, bool together) {
  uint32_t mask = 0;
  if (!together) {
#pragma unroll 1
    for (int i = 0; i < kSize; i += 2) mask |= KeptPair(DropoutDecision(law, row, column + i)) << i;
    return mask;
  }
  constexpr uint32_t kLanes = 64 / kSize;  // of a group: 8, or 16, which draw twice
  const uint32_t lane = threadIdx.x % 32, group = lane / kLanes * kLanes;
  const uint32_t lanes = ((1u << kLanes) - 1) << group;
  uint32_t words[4], own = 0;
  DropoutDecisions(law, row, column / 64 * 64 + lane % 8 * 2, words);
#pragma unroll
  for (int w = 0; w < 4; ++w) own |= KeptPair(words[w]) << 2 * w;
#pragma unroll
  for (uint32_t i = 0; i < kSize; i += 2) {
    const uint32_t theirs = __shfl_sync(lanes, own, group + (column % 16 + i) / 2);
    mask |= (theirs >> column / 16 % 4 * 2 & 3) << i;
  }
  return mask;
}

// Drops a pack; `width` is the row's.
template <int kSize>
__device__ __forceinline__ void DropPack(const DropoutLaw& law, uint32_t row, uint32_t column,
                                         int64_t width, float (&values)[kSize]) {
  const uint32_t mask = DropoutMask<kSize>(law, row, column, width % 64 == 0);
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    values[i] = (mask >> i & 1) != 0 ? values[i] * law.scale : 0.0f;
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CUDA_DROPOUT_CUH_
