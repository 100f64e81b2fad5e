// Decode attention, bf16. A cluster of blocks serves a head of a sequence; warp i of all its warps
// takes the cache blocks i, i + warps, ... as tiles of 16 positions (decode_tile.cuh), which arrive
// through a ring of bulk copies. Nothing is exchanged between warps until the end: each sends its
// partial result to the first block of the cluster, which adds them up in the order of the warps.
//
// Shared memory: the rings [warps][stages][K tile | V tile], then in the first block of the cluster
// the partial results float [cluster * warps][head_dim] and {maximum, sum} [cluster * warps].
//
// Before the dependency wait: context, block tables and the first tiles. After it: q, and K and V
// of the new token, which one warp takes from qkv and stores in the cache.
#include <cmath>

#include "kernels/attention/cuda/decode_tile.cuh"
#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {
namespace {

constexpr int kMaxWarps = 16;
constexpr int kMaxStages = 4;

// Adds up the partial results of all warps of the cluster and stores them.
template <int kHeadDim>
__device__ __forceinline__ void MergeWarps(const float* o, const float2* maxima_and_sums, int warps,
                                           uint32_t* out) {
  for (int i = threadIdx.x; i < kHeadDim / 2; i += blockDim.x) {
    float maximum = -INFINITY;
#pragma unroll 8
    for (int w = 0; w < warps; ++w) maximum = fmaxf(maximum, maxima_and_sums[w].x);
    float sum = 0.0f, low = 0.0f, high = 0.0f;
#pragma unroll 8
    for (int w = 0; w < warps; ++w) {
      const float2 state = maxima_and_sums[w];
      const float2 value = reinterpret_cast<const float2*>(o + w * kHeadDim)[i];
      const float factor = exp2f(state.x - maximum);
      sum = fmaf(factor, state.y, sum);
      low = fmaf(factor, value.x, low);
      high = fmaf(factor, value.y, high);
    }
    out[i] = PackBFloat16(low / sum, high / sum);
  }
}

template <int kHeadDim>
__global__ __launch_bounds__(kMaxWarps *
                             32) void DecodeKernel(const __grid_constant__ DecodeAttentionParams p,
                                                   int stages, float scale) {
  using T = Tile<kHeadDim>;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[kMaxWarps][kMaxStages];
  __shared__ uint64_t merged;
  const int warps = blockDim.x / 32, all_warps = warps * gridDim.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rank = blockIdx.x, head = blockIdx.y, row = blockIdx.z, heads = gridDim.y;
  const int first = rank * warps + warp;  // tile, then every all_warps-th
  const int context = __ldcg(p.context + row);
  if (context < 0) {
    ptx::StartNext();
    ptx::WaitForPrevious();  // whoever waits for this kernel waits for those before it, too
    return;
  }
  const int tiles = (context + kPagedKvTokens - 1) / kPagedKvTokens;
  const int count = tiles > first ? (tiles - first + all_warps - 1) / all_warps : 0;
  const int32_t* table = p.kv.block_tables + row * p.kv.table_stride;
  auto* cache = static_cast<uint8_t*>(p.kv.base);
  const auto piece = [&](int block, int part) {  // K (0) or V (1) of this head in a cache block
    return cache + ((static_cast<int64_t>(block) * 2 + part) * heads + head) * T::kBytes;
  };

  uint8_t* ring = shared + warp * stages * 2 * T::kBytes;
  int entry = lane < count ? __ldcg(table + first + lane * all_warps) : 0;  // of tiles i .. i + 31
  const auto issue = [&](int i) {  // by the whole warp, for i = 0, 1, 2, ...
    if (i % 32 == 0 && i > 0) {
      entry = i + lane < count ? __ldcg(table + first + (i + lane) * all_warps) : 0;
    }
    const int block = __shfl_sync(kAllLanes, entry, i % 32);
    if (lane == 0) {
      uint64_t* barrier = &barriers[warp][i % stages];
      uint8_t* slot = ring + i % stages * 2 * T::kBytes;
      ptx::ArriveExpect(barrier, 2 * T::kBytes);
      ptx::BulkCopyStreaming(slot, piece(block, 0), T::kBytes, barrier);
      ptx::BulkCopyStreaming(slot + T::kBytes, piece(block, 1), T::kBytes, barrier);
    }
  };
  auto* partials = reinterpret_cast<float*>(shared + warps * stages * 2 * T::kBytes);
  auto* states = reinterpret_cast<float2*>(partials + all_warps * kHeadDim);
  if (lane == 0) {
    for (int s = 0; s < stages; ++s) ptx::BarrierInit(&barriers[warp][s], 1);
    if (warp == 0) ptx::BarrierInit(&merged, 1);
    ptx::FenceBarrierInit();
    if (warp == 0) ptx::ArriveExpect(&merged, all_warps * (kHeadDim + 2) * sizeof(float));
  }
  __syncwarp();
  for (int i = 0; i < min(stages, count); ++i) issue(i);
  const bool has_new_token = first == tiles % all_warps;  // no warp has fewer tiles
  const int new_block = has_new_token ? __ldcg(table + context / kPagedKvTokens) : 0;
  ptx::StartNext();
  if (gridDim.x > 1) {  // `merged` of the first block is ready, and the block runs
    ptx::ClusterArrive();
    ptx::ClusterWait();
  } else {
    __syncthreads();
  }

  ptx::WaitForPrevious();
  const int column = lane % T::kLanes;
  const auto* qkv = static_cast<const uint4*>(p.qkv) +
                    (static_cast<int64_t>(row) * 3 * heads + head) * T::kLanes + column;
  const uint4 q_bits = __ldcg(qkv);
  uint4 new_k = {}, new_v = {};
  if (has_new_token) {
    new_k = __ldcg(qkv + heads * T::kLanes);
    new_v = __ldcg(qkv + 2 * heads * T::kLanes);
  }
  const float q[8] = {LowBFloat16(q_bits.x) * scale, HighBFloat16(q_bits.x) * scale,
                      LowBFloat16(q_bits.y) * scale, HighBFloat16(q_bits.y) * scale,
                      LowBFloat16(q_bits.z) * scale, HighBFloat16(q_bits.z) * scale,
                      LowBFloat16(q_bits.w) * scale, HighBFloat16(q_bits.w) * scale};
  Partial partial;
  int stage = 0;
  uint32_t parity = 0;
  for (int i = 0; i < count; ++i) {
    ptx::BarrierWait(&barriers[warp][stage], parity);
    const auto* k = reinterpret_cast<const uint4*>(ring + stage * 2 * T::kBytes);
    const int valid = min(context - (first + i * all_warps) * kPagedKvTokens, kPagedKvTokens);
    AddTile<kHeadDim>(k, k + T::kVectors, valid, q, partial);
    __syncwarp();  // every lane has read the slot
    if (i + stages < count) issue(i + stages);
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  if (has_new_token) {
    AddToken<kHeadDim>(new_k, new_v, q, partial);
    if (lane < T::kLanes) {
      const int at = context % kPagedKvTokens * T::kLanes + column;
      reinterpret_cast<uint4*>(piece(new_block, 0))[at] = new_k;
      reinterpret_cast<uint4*>(piece(new_block, 1))[at] = new_v;
    }
  }
  MergeGroups<kHeadDim>(partial);
  const float(&o)[8] = partial.o;
  const float4 low = make_float4(o[0], o[1], o[2], o[3]);
  const float4 high = make_float4(o[4], o[5], o[6], o[7]);
  const float2 state = make_float2(partial.maximum, partial.sum);
  float* to = partials + first * kHeadDim + column * 8;
  if (gridDim.x > 1) {
    const uint32_t barrier = ptx::ClusterAddress(&merged, 0);
    if (lane < T::kLanes) {
      ptx::StoreAsync(ptx::ClusterAddress(to, 0), low, barrier);
      ptx::StoreAsync(ptx::ClusterAddress(to + 4, 0), high, barrier);
    }
    if (lane == 0) ptx::StoreAsync(ptx::ClusterAddress(states + first, 0), state, barrier);
    if (rank != 0 || threadIdx.x >= kHeadDim / 2) return;
    ptx::BarrierWait(&merged, 0);
  } else {
    if (lane < T::kLanes) {
      reinterpret_cast<float4*>(to)[0] = low;
      reinterpret_cast<float4*>(to)[1] = high;
    }
    if (lane == 0) states[first] = state;
    __syncthreads();
  }
  MergeWarps<kHeadDim>(
      partials, states, all_warps,
      static_cast<uint32_t*>(p.out) + (static_cast<int64_t>(row) * heads + head) * (kHeadDim / 2));
}

template <int kHeadDim>
cudaError_t Launch(const DecodeAttentionParams& p, const DecodeAttentionPlan& plan,
                   cudaStream_t stream) {
  const float scale = 1.44269504f / sqrtf(kHeadDim);  // exp(x) = 2^(x log2 e)
  return LaunchDependent(DecodeKernel<kHeadDim>,
                         {.grid = dim3(plan.cluster, p.kv.heads, p.batch),
                          .block = dim3(plan.warps * 32),
                          .shared_bytes = plan.shared_bytes,
                          .cluster = plan.cluster},
                         stream, p, plan.stages, scale);
}

}  // namespace

cudaError_t LaunchDecodeAttention(const DecodeAttentionParams& params,
                                  const DecodeAttentionPlan& plan, cudaStream_t stream) {
  if (plan.warps < 1 || plan.warps > kMaxWarps || plan.stages < 1 || plan.stages > kMaxStages) {
    return cudaErrorInvalidValue;
  }
  switch (params.kv.head_dim) {
    case 64:
      return Launch<64>(params, plan, stream);
    case 80:
      return Launch<80>(params, plan, stream);
    case 128:
      return Launch<128>(params, plan, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
