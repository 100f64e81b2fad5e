// Attention of one query over tiles of 16 positions in shared memory, by a warp. A position is
// served by head_dim / 8 lanes with a 16-byte vector each, so 4, 3 or 2 positions at a time; every
// such group of lanes has its own running maximum and sum until MergeGroups. All lanes of the warp
// call together.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_DECODE_TILE_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_DECODE_TILE_CUH_

#include <cmath>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {

constexpr unsigned kAllLanes = 0xffffffffu;

template <int kHeadDim>
struct Tile {
  static constexpr int kLanes = kHeadDim / 8;  // of a position
  static constexpr int kGroups = 32 / kLanes;  // positions at a time
  static constexpr int kRounds = (kPagedKvTokens + kGroups - 1) / kGroups;
  static constexpr int kBytes = kPagedKvTokens * kHeadDim * 2;  // of K or V
  static constexpr int kVectors = kBytes / 16;
};

// What a lane knows of the softmax over the positions of its group: o is not divided by `sum` yet.
struct Partial {
  float maximum = -INFINITY;
  float sum = 0.0f;
  float o[8] = {};
};

__device__ __forceinline__ float Dot(const float (&q)[8], uint4 k) {
  float even = q[0] * LowBFloat16(k.x), odd = q[1] * HighBFloat16(k.x);
  even = fmaf(q[2], LowBFloat16(k.y), even);
  odd = fmaf(q[3], HighBFloat16(k.y), odd);
  even = fmaf(q[4], LowBFloat16(k.z), even);
  odd = fmaf(q[5], HighBFloat16(k.z), odd);
  even = fmaf(q[6], LowBFloat16(k.w), even);
  odd = fmaf(q[7], HighBFloat16(k.w), odd);
  return even + odd;
}

__device__ __forceinline__ void AddScaled(float weight, uint4 v, float (&o)[8]) {
  o[0] = fmaf(weight, LowBFloat16(v.x), o[0]);
  o[1] = fmaf(weight, HighBFloat16(v.x), o[1]);
  o[2] = fmaf(weight, LowBFloat16(v.y), o[2]);
  o[3] = fmaf(weight, HighBFloat16(v.y), o[3]);
  o[4] = fmaf(weight, LowBFloat16(v.z), o[4]);
  o[5] = fmaf(weight, HighBFloat16(v.z), o[5]);
  o[6] = fmaf(weight, LowBFloat16(v.w), o[6]);
  o[7] = fmaf(weight, HighBFloat16(v.w), o[7]);
}

// Sum over the lanes of a group, the same in all of them.
template <int kLanes>
__device__ __forceinline__ float GroupSum(float value, int first_lane) {
  if constexpr (kLanes == 10) {
    const float pairs = value + __shfl_down_sync(kAllLanes, value, 5);  // lanes 0 to 4
    const float fours = pairs + __shfl_down_sync(kAllLanes, pairs, 2);  // lanes 0 and 1
    return __shfl_sync(kAllLanes, fours, first_lane) +
           __shfl_sync(kAllLanes, fours, first_lane + 1) +
           __shfl_sync(kAllLanes, pairs, first_lane + 4);
  } else {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(kAllLanes, value, offset);
    }
    return value;
  }
}

// Moves the partial result to the maximum of itself and `score`s; returns that maximum, or 0 where
// there is none yet, for which every weight comes out as 0.
__device__ __forceinline__ float Rescale(float maximum, Partial& partial) {
  const float reference = maximum == -INFINITY ? 0.0f : maximum;
  const float factor = exp2f(partial.maximum - reference);
  partial.maximum = maximum;
  partial.sum *= factor;
#pragma unroll
  for (float& value : partial.o) value *= factor;
  return reference;
}

// Adds the first `valid` positions of a tile.
template <int kHeadDim>
__device__ __forceinline__ void AddTile(const uint4* k, const uint4* v, int valid,
                                        const float (&q)[8], Partial& partial) {
  using T = Tile<kHeadDim>;
  const int lane = threadIdx.x % 32;
  const int group = lane / T::kLanes;
  const int column = lane % T::kLanes;
  float score[T::kRounds];
#pragma unroll
  for (int r = 0; r < T::kRounds; ++r) {
    const int position = min(r * T::kGroups + group, kPagedKvTokens - 1);
    score[r] = Dot(q, k[position * T::kLanes + column]);
  }
  float maximum = partial.maximum;
#pragma unroll
  for (int r = 0; r < T::kRounds; ++r) {
    const float sum = GroupSum<T::kLanes>(score[r], group * T::kLanes);
    const bool counts = group < T::kGroups && r * T::kGroups + group < valid;
    score[r] = counts ? sum : -INFINITY;
    maximum = fmaxf(maximum, score[r]);
  }
  const float reference = Rescale(maximum, partial);
#pragma unroll
  for (int r = 0; r < T::kRounds; ++r) {
    const int position = min(r * T::kGroups + group, kPagedKvTokens - 1);
    const float weight = exp2f(score[r] - reference);
    partial.sum += weight;
    // A slot that was never written may hold NaN.
    if (position < valid) AddScaled(weight, v[position * T::kLanes + column], partial.o);
  }
}

// Adds one position, which only the first group of lanes counts.
template <int kHeadDim>
__device__ __forceinline__ void AddToken(uint4 k, uint4 v, const float (&q)[8], Partial& partial) {
  using T = Tile<kHeadDim>;
  const int group = threadIdx.x % 32 / T::kLanes;
  const float sum = GroupSum<T::kLanes>(Dot(q, k), group * T::kLanes);
  const float score = group == 0 ? sum : -INFINITY;
  const float reference = Rescale(fmaxf(partial.maximum, score), partial);
  const float weight = exp2f(score - reference);
  partial.sum += weight;
  AddScaled(weight, v, partial.o);
}

// Adds up the groups of the warp; the result is in the lanes of the first one.
template <int kHeadDim>
__device__ __forceinline__ void MergeGroups(Partial& partial) {
  using T = Tile<kHeadDim>;
  float maximum = partial.maximum;
#pragma unroll
  for (int g = 0; g < T::kGroups; ++g) {
    maximum = fmaxf(maximum, __shfl_sync(kAllLanes, partial.maximum, g * T::kLanes));
  }
  Rescale(maximum, partial);
  const auto add = [](float& value) {
    const float own = value;
#pragma unroll
    for (int g = 1; g < T::kGroups; ++g) {
      value += __shfl_down_sync(kAllLanes, own, g * T::kLanes);
    }
  };
  add(partial.sum);
#pragma unroll
  for (float& value : partial.o) add(value);
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_DECODE_TILE_CUH_
