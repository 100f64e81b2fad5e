// Dropout for tiles of scores whose rows are keys, as the gradients of keys and values want them.
// The mask's counters run along the keys, across the rows that a warp holds.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_DROPOUT_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_DROPOUT_CUH_

#include <cstdint>

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"

namespace hanlin {

// Dropout's decisions for a tile whose rows are keys, of this lane: about element e = 16 r + 8 w +
// 4 j + 2 i + c, bit 4 + 2 j + i of byte 2 w + c of kept[r].
struct KeptOfKeyRows {
  uint32_t kept[2];

  __device__ __forceinline__ bool operator()(int e) const {
    return (kept[e / 16] >> (e / 8 % 2 * 16 + e % 2 * 8 + 4 + e / 2 % 4) & 1) != 0;
  }
  // Clears what dropout takes among packed probabilities.
  __device__ __forceinline__ void Drop(uint32_t (&weights)[4][4]) const {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const uint32_t signs = kept[i / 8] << (3 - i % 4);  // of the bytes, which prmt repeats
      uint32_t mask;
      if (i / 4 % 2 == 0) {
        asm("prmt.b32 %0, %1, 0, 0x9988;" : "=r"(mask) : "r"(signs));
      } else {
        asm("prmt.b32 %0, %1, 0, 0xbbaa;" : "=r"(mask) : "r"(signs));
      }
      weights[i / 4][i % 4] &= mask;
    }
  }
};

// A counter is of one query and of two keys in each 16, which are the 4 warps: each draws for a
// quarter of the queries and the warps exchange what they drew. One tile's is read while the next
// one's is written.
struct alignas(4) KeptExchange {
  // [tile % 2][warp that reads][half of the warps that wrote][its lane][the warp in the half]
  uint16_t halves[2][4][2][32][2];
};

// `row` is of the tile's first query, `column` of the warpgroup's first key, a multiple of 64. By
// the whole warpgroup, which draws so many of a lane's 4 counters at once as it has registers for.
template <int kAtOnce>
__device__ __forceinline__ KeptOfKeyRows DecideOnKeyRows(const DropoutLaw& law, uint32_t row,
                                                         uint32_t column, int index,
                                                         KeptExchange& exchange) {
  const uint32_t warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  // Two lanes, 4 apart, have the same pairs of keys: each draws for one query in two.
  const bool odd = lane / 4 % 2 != 0;
  const uint32_t query = row + warp * 16 + lane % 4 * 2 + (odd ? 1 : 0);
  const uint32_t key = column + lane / 8 * 2;
  uint32_t drawn[4] = {};  // for each warp; bits 12 to 15 of the first key, 28 to 31 of the second
#pragma unroll kAtOnce
  for (int n = 0; n < 4; ++n) {
    uint32_t words[4];
    DropoutDecisions(law, query + n / 2 * 8, key + n % 2 * 8, words);
#pragma unroll
    for (int w = 0; w < 4; ++w) drawn[w] = drawn[w] >> 1 | (words[w] & 0x80008000u);
  }
  // A byte for each warp.
  const uint32_t low = __byte_perm(drawn[0], drawn[1], 0x7351);
  const uint32_t high = __byte_perm(drawn[2], drawn[3], 0x7351);
  const uint32_t first = __byte_perm(low, high, 0x5410), second = __byte_perm(low, high, 0x7632);
  const uint32_t theirs = __shfl_xor_sync(0xffffffffu, odd ? first : second, 4);
  const uint32_t even_query = odd ? theirs : first, odd_query = odd ? second : theirs;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    exchange.halves[index % 2][w][warp / 2][lane][warp % 2] =
        static_cast<uint16_t>(__byte_perm(even_query, odd_query, w | (w + 4) << 4));
  }
  ptx::NamedBarrier(threadIdx.x / 128 + 1, 128);
  const auto& mine = exchange.halves[index % 2][warp];
  return {{*reinterpret_cast<const uint32_t*>(mine[0][lane]),
           *reinterpret_cast<const uint32_t*>(mine[1][lane])}};
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_DROPOUT_CUH_
