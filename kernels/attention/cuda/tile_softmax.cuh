// Softmax of a warpgroup's tile of 64 x 64 scores as the tensor cores leave it (wgmma.cuh): lane t
// of warp w holds, in s[4 j + 2 i + c], row 16 w + t / 4 + 8 i and column 8 j + t % 4 * 2 + c.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_TILE_SOFTMAX_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_TILE_SOFTMAX_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {

// The softmax of two rows so far, in each of the 4 lanes that share them; `sum` is of this lane.
struct SoftmaxState {
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
};

// Turns scores into weights and moves the sums to the new maximum; `factor` moves o there.
__device__ __forceinline__ void Softmax(float (&s)[32], float scale, SoftmaxState& state,
                                        float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float maximum = state.maximum[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      maximum = fmaxf(maximum, fmaxf(s[4 * j + 2 * i], s[4 * j + 2 * i + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
    factor[i] = ptx::Exp2((state.maximum[i] - maximum) * scale);
    const float offset = maximum * scale;
    state.maximum[i] = maximum;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& value = s[4 * j + 2 * i + c];
        value = ptx::Exp2(fmaf(value, scale, -offset));
        sum += value;
      }
    }
    state.sum[i] = state.sum[i] * factor[i] + sum;
  }
}

// As the left operand of the next product: pairs of columns in bf16.
__device__ __forceinline__ void PackWeights(const float (&s)[32], uint32_t (&weights)[4][4]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) weights[i / 4][i % 4] = PackBFloat16(s[2 * i], s[2 * i + 1]);
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_TILE_SOFTMAX_CUH_
