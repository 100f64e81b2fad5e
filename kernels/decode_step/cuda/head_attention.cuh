// The phase between QKV and the output product: every block attends to its share of the head's
// positions, and every block puts the shares of all heads together.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_HEAD_ATTENTION_CUH_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_HEAD_ATTENTION_CUH_

#include <cmath>

#include "kernels/attention/cuda/decode_tile.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/decode_step/cuda/crew.cuh"
#include "kernels/decode_step/cuda/step_layout.cuh"

namespace hanlin::decode_step {

template <typename L>
class HeadAttention {
 public:
  __device__ explicit HeadAttention(Crew<L>& crew) : crew_(crew) {}

  // Starts behind the kernels before this one.
  __device__ void Begin() {
    context_ = max(__ldcg(crew_.p.context), 0);
    const int tiles = (context_ + kPagedKvTokens - 1) / kPagedKvTokens;
    tiles_ = TilesOfSplit(context_, crew_.place.split);
    has_new_token_ = tiles % kDecodeStepSplits == crew_.place.split;
    new_block_ = __ldcg(crew_.p.kv.block_tables + context_ / kPagedKvTokens);
  }

  // The share of the positions that falls to this block.
  __device__ void Attend(int layer) {
    const int order = crew_.Order();
    const int parts = tiles_ + (has_new_token_ ? 1 : 0);  // for the warps in turn
    const int active = min(parts, L::kWarps);
    if (order < active) {
      const auto* qkv =
          reinterpret_cast<const uint4*>(crew_.p.qkv) + crew_.place.head * T::kLanes + Column();
      const uint4 bits = __ldcg(qkv);
      const bool adds_token = has_new_token_ && order == tiles_ % L::kWarps;
      uint4 new_k = {}, new_v = {};
      if (adds_token) {
        new_k = __ldcg(qkv + kDecodeStepHeads * T::kLanes);
        new_v = __ldcg(qkv + 2 * kDecodeStepHeads * T::kLanes);
      }
      const float scale = 1.44269504f * rsqrtf(L::kHeadDim);  // exp(x) = 2^(x log2 e)
      const float q[8] = {LowBFloat16(bits.x) * scale, HighBFloat16(bits.x) * scale,
                          LowBFloat16(bits.y) * scale, HighBFloat16(bits.y) * scale,
                          LowBFloat16(bits.z) * scale, HighBFloat16(bits.z) * scale,
                          LowBFloat16(bits.w) * scale, HighBFloat16(bits.w) * scale};
      Partial partial;
      crew_.ForUnits(tiles_, [&](int i, const uint4* slot) {
        const int first = (crew_.place.split + i * kDecodeStepSplits) * kPagedKvTokens;
        AddTile<L::kHeadDim>(slot, slot + T::kVectors, min(context_ - first, kPagedKvTokens), q,
                             partial);
      });
      if (adds_token) {
        AddToken<L::kHeadDim>(new_k, new_v, q, partial);
        StoreToken(layer, new_k, new_v);
      }
      MergeGroups<L::kHeadDim>(partial);
      auto& to = crew_.shared.attention[order];
      if (crew_.lane < T::kLanes) {
#pragma unroll
        for (int i = 0; i < 8; ++i) to.o[8 * Column() + i] = partial.o[i];
      }
      if (crew_.lane == 0) {
        to.maximum = partial.maximum;
        to.sum = partial.sum;
      }
    }
    crew_.Pass(tiles_);
    crew_.Synchronize();
    if (crew_.warp == 0) {
      StoreShare(active);
      crew_.SynchronizeGrid();
    }
    crew_.Synchronize();
  }

  // shared.x = the attention of all heads, from the shares of their blocks.
  __device__ void LoadAttention() {
    constexpr int kColumns = L::kHeadDim / 8;
    for (int i = threadIdx.x; i < L::kHidden / 8; i += L::kConsumers) {
      const int head = i / kColumns;
      uint4 o[kDecodeStepSplits];
      float2 state[kDecodeStepSplits];
      float maximum = -INFINITY;
#pragma unroll
      for (int s = 0; s < kDecodeStepSplits; ++s) {
        const int share = head * kDecodeStepSplits + s;
        o[s] = __ldcg(reinterpret_cast<const uint4*>(crew_.p.attention) + share * kColumns +
                      i % kColumns);
        state[s] = __ldcg(crew_.p.exchange->softmax + share);
      }
#pragma unroll
      for (int s = 0; s < kDecodeStepSplits; ++s) maximum = fmaxf(maximum, state[s].x);
      float weight[kDecodeStepSplits], sum = 0.0f;
#pragma unroll
      for (int s = 0; s < kDecodeStepSplits; ++s) {
        weight[s] = exp2f(state[s].x - maximum) * state[s].y;
        sum += weight[s];
      }
      float v[8] = {};
#pragma unroll
      for (int s = 0; s < kDecodeStepSplits; ++s) AddScaled(weight[s] / sum, o[s], v);
      crew_.shared.x[i] = {PackBFloat16(v[0], v[1]), PackBFloat16(v[2], v[3]),
                           PackBFloat16(v[4], v[5]), PackBFloat16(v[6], v[7])};
    }
    crew_.Synchronize();
  }

 private:
  using T = Tile<L::kHeadDim>;

  __device__ int Column() const { return crew_.lane % T::kLanes; }

  __device__ void StoreToken(int layer, uint4 k, uint4 v) const {
    if (crew_.lane >= T::kLanes) return;
    auto* cache = static_cast<uint8_t*>(crew_.p.kv.base) + layer * crew_.p.kv_layer_bytes +
                  (int64_t{2} * kDecodeStepHeads * new_block_ + crew_.place.head) * L::kTileBytes;
    const int at = context_ % kPagedKvTokens * T::kLanes + crew_.lane;
    reinterpret_cast<uint4*>(cache)[at] = k;
    reinterpret_cast<uint4*>(cache + kDecodeStepHeads * L::kTileBytes)[at] = v;
  }

  // Adds up the warps' results; the share is divided by its own sum. By warp 0.
  __device__ void StoreShare(int warps) const {
    float maximum = -INFINITY;
    for (int w = 0; w < warps; ++w) maximum = fmaxf(maximum, crew_.shared.attention[w].maximum);
    constexpr int kPairs = L::kHeadDim / 2;
    float sum = 0.0f;
    float2 o[(kPairs + 31) / 32] = {};
    for (int w = 0; w < warps; ++w) {
      const auto& from = crew_.shared.attention[w];
      const float factor = exp2f(from.maximum - maximum);
      sum = fmaf(factor, from.sum, sum);
#pragma unroll
      for (int i = crew_.lane, j = 0; j < (kPairs + 31) / 32; i += 32, ++j) {
        if (i >= kPairs) continue;
        o[j].x = fmaf(factor, from.o[2 * i], o[j].x);
        o[j].y = fmaf(factor, from.o[2 * i + 1], o[j].y);
      }
    }
    auto* to = reinterpret_cast<uint32_t*>(crew_.p.attention) + crew_.place.block * kPairs;
    const float scale = warps > 0 ? 1.0f / sum : 0.0f;
#pragma unroll
    for (int i = crew_.lane, j = 0; j < (kPairs + 31) / 32; i += 32, ++j) {
      if (i < kPairs) to[i] = PackBFloat16(o[j].x * scale, o[j].y * scale);
    }
    if (crew_.lane == 0) crew_.p.exchange->softmax[crew_.place.block] = make_float2(maximum, sum);
  }

  Crew<L>& crew_;
  int context_ = 0, tiles_ = 0, new_block_ = 0;
  bool has_new_token_ = false;
};

}  // namespace hanlin::decode_step

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_HEAD_ATTENTION_CUH_
