// Sums over the rows of a warpgroup's result as the tensor cores leave it (wgmma.cuh), 64 x head
// size: its share of the gradient of a bias, before the result is rounded. They are added in a
// fixed order: two rows of a lane, lanes, warps.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_COLUMN_SUMS_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_COLUMN_SUMS_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/base/cuda/ptx.cuh"

namespace hanlin {

// Of kResults results of a warpgroup at once, in shared memory.
template <int kHeadDim, int kResults>
using WarpSums = float[kResults][4][kHeadDim];

// Of two halves of values, adds the one that this lane keeps and that of the lane `distance` away.
template <int kKept, int kValues>
__device__ __forceinline__ void AddHalf(float (&values)[kValues], int distance) {
  const bool high = (threadIdx.x & distance) != 0;
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    const float low_value = values[n], high_value = values[n + kKept];
    const float theirs = __shfl_xor_sync(0xffffffffu, high ? low_value : high_value, distance);
    values[n] = (high ? high_value : low_value) + theirs;
  }
}

// The sums over the 16 rows of a warp.
template <int kHeadDim>
__device__ __forceinline__ void AddUpRows(const float (&o)[kHeadDim / 2], float (&sums)[kHeadDim]) {
  constexpr int kKept = kHeadDim / 16;
  float values[kHeadDim / 4];  // of columns 8 j + t % 4 * 2 + c, at 2 j + c
#pragma unroll
  for (int n = 0; n < kHeadDim / 4; ++n)
    values[n] = o[n / 2 * 4 + n % 2] + o[n / 2 * 4 + 2 + n % 2];
  AddHalf<2 * kKept>(values, 16);
  AddHalf<kKept>(values, 8);
#pragma unroll
  for (int n = 0; n < kKept; ++n) values[n] += __shfl_xor_sync(0xffffffffu, values[n], 4);
  if ((threadIdx.x & 4) != 0) return;
  const int first = (threadIdx.x & 16) / 8 * kKept + (threadIdx.x & 8) / 8 * kKept;
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    sums[(first + n) / 2 * 8 + threadIdx.x % 4 * 2 + (first + n) % 2] = values[n];
  }
}

// Stores the sums of a warpgroup's results, times a factor each; `to`: of the first result, and
// `stride` floats on of the next. By a warpgroup whose barrier is `barrier`; what it kept in
// `warps` is lost.
template <int kHeadDim, int kResults>
__device__ __forceinline__ void StoreColumnSums(const float (&factors)[kResults],
                                                WarpSums<kHeadDim, kResults>& warps, int barrier,
                                                int64_t stride, float* to) {
  ptx::NamedBarrier(barrier, 128);
  for (int i = threadIdx.x % 128; i < kResults * kHeadDim; i += 128) {
    const int result = i / kHeadDim, column = i % kHeadDim;
    const auto& parts = warps[result];
    const float sum = parts[0][column] + parts[1][column] + parts[2][column] + parts[3][column];
    to[result * stride + column] = sum * factors[result];
  }
}

// Where the sums of 64 rows from position `first` on go: of dQ (0), dK (1) or dV (2).
__device__ __forceinline__ float* PartialSums(const CudaCausalAttentionParams& p,
                                              const CausalAttentionState& state, int sequence,
                                              int head, int first, int which) {
  const int64_t part = (sequence * state.padded_length + first) / 64;
  return state.partial_sums + ((part * 3 + which) * p.heads + head) * p.head_dim;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_COLUMN_SUMS_CUH_
