// Dropout's mask on the device, the one of kernels/elementwise/cpu/elementwise.h bit by bit. A
// kernel takes a DropoutLaw, made on the host; one counter gives the words of the four columns c,
// c + 16, c + 32 and c + 48 of a group of 64.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_DROPOUT_CUH_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_DROPOUT_CUH_

#include <cstdint>

#include "kernels/base/cuda/philox.cuh"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

struct DropoutLaw {
  uint32_t key0, key1;
  uint32_t step, site;
  uint32_t threshold;  // a word from here on is kept; 0 where the rate is
  float scale;         // of what is kept
};

inline DropoutLaw MakeDropoutLaw(const DropoutParams& p) {
  // The smallest word r with float(r) * 2^-32 >= rate: the conversion rounds but never decreases.
  uint64_t below = 0, threshold = uint64_t{1} << 32;
  while (below < threshold) {
    const uint64_t middle = (below + threshold) / 2;
    if (static_cast<float>(static_cast<uint32_t>(middle)) * 0x1p-32f >= p.rate) {
      threshold = middle;
    } else {
      below = middle + 1;
    }
  }
  return {static_cast<uint32_t>(p.seed),
          static_cast<uint32_t>(p.seed >> 32),
          p.step,
          p.site,
          static_cast<uint32_t>(threshold),
          1.0f / (1.0f - p.rate)};
}

// The words of the columns `column` + 16 w, w from 0 to 3, where column % 64 < 16.
__device__ __forceinline__ void DropoutWords(const DropoutLaw& law, uint32_t row, uint32_t column,
                                             uint32_t (&words)[4]) {
  words[0] = column / 64 * 16 + column % 16;
  words[1] = row;
  words[2] = law.site;
  words[3] = law.step;
  Philox4x32(law.key0, law.key1, words);
}

__device__ __forceinline__ bool DropoutKeeps(const DropoutLaw& law, uint32_t row, uint32_t column) {
  uint32_t words[4];
  DropoutWords(law, row, column / 64 * 64 + column % 16, words);
  const uint32_t w = column / 16 % 4;
  return (w == 0 ? words[0] : w == 1 ? words[1] : w == 2 ? words[2] : words[3]) >= law.threshold;
}

// Which of the kSize (4 or 8) elements from `column` on, a multiple of kSize, are kept: bit i is
// that of column + i. With `together`, neighbouring lanes hold neighbouring packs of a row, a group
// of 64 columns begins at a lane that 64 / kSize divides, and all its lanes call: they share out
// the counters that they have in common.
template <int kSize>
__device__ __forceinline__ uint32_t DropoutMask(const DropoutLaw& law, uint32_t row,
                                                uint32_t column, bool together) {
  uint32_t mask = 0;
  if (!together) {
#pragma unroll 1
    for (int i = 0; i < kSize; ++i) {
      mask |= static_cast<uint32_t>(DropoutKeeps(law, row, column + i)) << i;
    }
    return mask;
  }
  constexpr uint32_t kLanes = 64 / kSize;    // of a group
  constexpr uint32_t kCounters = kSize / 4;  // of a lane
  const uint32_t lane = threadIdx.x % 32, word = column / 16 % 4;
  uint32_t own = 0;  // kCounters bits for each of the four words
#pragma unroll
  for (uint32_t i = 0; i < kCounters; ++i) {
    uint32_t words[4];
    DropoutWords(law, row, column / 64 * 64 + column % 16 + word * kCounters + i, words);
#pragma unroll
    for (uint32_t w = 0; w < 4; ++w) {
      own |= static_cast<uint32_t>(words[w] >= law.threshold) << (w * kCounters + i);
    }
  }
  const uint32_t group = lane / kLanes * kLanes;
  const uint32_t lanes = ((1u << kLanes) - 1) << group;
#pragma unroll
  for (uint32_t v = 0; v < 4; ++v) {
    const uint32_t from = group + v * (kLanes / 4) + lane % (kLanes / 4);
    const uint32_t bits = __shfl_sync(lanes, own, from) >> (word * kCounters);
    mask |= (bits & ((1u << kCounters) - 1)) << (v * kCounters);
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
