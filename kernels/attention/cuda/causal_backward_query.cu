// dQ of causal attention for training, bf16 on the tensor cores, where dK and dV come from a kernel
// of their own: a warpgroup keeps 64 queries and meets the tiles of keys,
//
//   S = Q K^T,  dP = dO V^T,  dQ += dS K
//
// with the law of causal_key_gradient.cuh. A tile's two products for the scores are issued
// together; the one with dS runs while the next tile's are issued. The kernel also leaves the
// statistics of its queries, which the one for dK and dV reads: their row of dO is at hand.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/causal_column_sums.cuh"
#include "kernels/attention/cuda/causal_key_gradient.cuh"
#include "kernels/attention/cuda/causal_statistics.cuh"
#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

// Three warpgroups where their registers last. With head size 80 they spill a little, which pays
// only without dropout.
template <int kHeadDim, bool kDropout>
constexpr bool kThreeQueryGroups = kHeadDim == 64 || (kHeadDim == 80 && !kDropout);
template <int kHeadDim, bool kDropout>
using QueryGroups =
    std::conditional_t<kThreeQueryGroups<kHeadDim, kDropout>, Groups<3, 152>, Groups<2, 224>>;
template <int kHeadDim, bool kDropout>
using QuerySpace = TileSpace<kHeadDim, QueryGroups<kHeadDim, kDropout>, 2>;
template <int kHeadDim, bool kDropout>
using QueryRing = TileRing<QuerySpace<kHeadDim, kDropout>, QueryGroups<kHeadDim, kDropout>>;

// The statistics of this lane's two queries; lanes that share them have the same.
__device__ __forceinline__ void StoreStatistics(const CudaCausalAttentionParams& p,
                                                const CausalAttentionState& state, int sequence,
                                                int head, int position, const float (&log_sum)[2],
                                                const float (&delta)[2]) {
  if (threadIdx.x % 4 != 0) return;
  float2* const to =
      state.statistics + (sequence * p.heads + head) * state.padded_length + position;
#pragma unroll
  for (int i = 0; i < 2; ++i) to[8 * i] = make_float2(-log_sum[i] / p.scale, -delta[i]);
}

// dQ of a warpgroup's 64 queries from `first` on, whose keys are the thread block's pairs from
// `base` on.
template <int kHeadDim, bool kDropout>
__device__ __forceinline__ void QueryGradient(
    const CudaCausalAttentionParams& p, const DropoutLaw& law, const CausalAttentionState& state,
    int sequence, int head, int first, const KeyTiles& keys, const uint8_t* q,
    const QuerySpace<kHeadDim, kDropout>& space, QueryRing<kHeadDim, kDropout>& ring, int base,
    WarpSums<kHeadDim, 1>& sums, const void* out, uint32_t* dqkv) {
  constexpr int kTileBytes = QuerySpace<kHeadDim, kDropout>::kTileBytes;
  const int length = static_cast<int>(p.length);
  const QueryPair queries(first, length, keys.begins);
  const OutPart<kHeadDim> out_part(OutRows<kHeadDim>(p, out, sequence, head), queries.position,
                                   length);
  const float scale = p.scale * kLog2E;
  float log_sum[2], delta[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int position = queries.position + 8 * i;
    log_sum[i] = position < length
                     ? __ldcg(p.log_sum + (sequence * p.heads + head) * p.length + position)
                     : INFINITY;
  }
  const uint32_t dropout_row =
      p.dropout.first_row + static_cast<uint32_t>(sequence * p.length) + queries.position;
  float dq[kHeadDim / 2] = {};
  uint32_t weights[4][4];
  const uint8_t* k = nullptr;
  const auto meet = [&](int tile, auto has_previous) {
    const int key = tile * 64, index = base + tile - keys.first;
    [[maybe_unused]] const uint8_t* const before = k;
    k = space.Pair(index);
    float s[32], dp[32];
    ring.WaitFull(index);
    ptx::WgmmaFence();
    ptx::TileScores<kHeadDim>(q, k, s);
    ptx::WgmmaCommit();
    ptx::TileScores<kHeadDim>(q + kTileBytes, k + kTileBytes, dp);
    ptx::WgmmaCommit();
    if constexpr (decltype(has_previous)::value) ptx::TileValues<kHeadDim>(weights, before, dq);
    ptx::WgmmaCommit();
    uint32_t decisions[4][4] = {};
    if constexpr (kDropout) {
      DecideOnQueryRows(law, dropout_row, (p.first_head + head) * kHeadColumns + key, decisions);
    }
    ptx::WgmmaWait<2>();
    ptx::WgmmaResults(s);
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      s[e] = ptx::Exp2(fmaf(s[e], scale, -kLog2E * log_sum[e / 2 % 2]));
    }
    if constexpr (!decltype(has_previous)::value) {
      out_part.Dot(q + kTileBytes, delta);
      StoreStatistics(p, state, sequence, head, queries.position, log_sum, delta);
    }
    if (queries.Hides(key, first)) HideKeys(queries, key, 0.0f, s);
    ptx::WgmmaWait<1>();
    ptx::WgmmaResults(dp);
    ScoreGradients<kDropout>(
        [&](int e) { return (decisions[e / 8][e / 2 % 4] >> (15 + e % 2 * 16) & 1) != 0; },
        law.scale, [&](int e) { return -delta[e / 2 % 2]; }, s, dp);
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(dq);
    if constexpr (decltype(has_previous)::value) ring.Free(index - 1);
    PackWeights(dp, weights);
  };
  meet(keys.first, std::false_type());
  for (int tile = keys.first + 1; tile <= first / 64; ++tile) meet(tile, std::true_type());
  ptx::WgmmaFence();
  ptx::TileValues<kHeadDim>(weights, k, dq);
  ptx::WgmmaCommit();
  ptx::WgmmaWait<0>();
  ptx::WgmmaResults(dq);
  ring.Free(base + first / 64 - keys.first);
  const int64_t row_words = 3 * p.heads * (kHeadDim / 2);
  StoreTile<kHeadDim>(dq, p.scale, p.scale, length - first, row_words,
                      dqkv + (sequence * p.length + first) * row_words + head * (kHeadDim / 2));
  const int barrier = threadIdx.x / 128 + 1;
  ptx::NamedBarrier(barrier, 128);  // a slow warp may still read the sums of the queries before
  AddUpRows<kHeadDim>(dq, sums[0][threadIdx.x % 128 / 32]);
  StoreColumnSums<kHeadDim, 1>({p.scale}, sums, barrier, 0,
                               PartialSums(p, state, sequence, head, first, 0));
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(QueryGroups<kHeadDim, kDropout>::kThreads, 1)
    QueryGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                        const __grid_constant__ DropoutLaw law,
                        const __grid_constant__ CausalWork shape,
                        const __grid_constant__ CausalAttentionState state, const void* out,
                        const void* dout, uint32_t* dqkv) {
  using G = QueryGroups<kHeadDim, kDropout>;
  extern __shared__ uint8_t unaligned[];
  const QuerySpace<kHeadDim, kDropout> space(unaligned);
  __shared__ QueryRing<kHeadDim, kDropout> ring;
  __shared__ WarpSums<kHeadDim, 1> sums[G::kCount];
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = ptx::Uniform(threadIdx.x / 128);
  Schedule work(shape);
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    for (int round = 0, base = 0; work.Next(); ++round) {
      const KeyTiles keys(p, work, G::kCount);
      ring.WaitOwnFree(round);
      for (int g = keys.idle; g < G::kCount; ++g) {
        CopyOwnTiles<kHeadDim>(QkvRows<kHeadDim>(p, 0, work.sequence, work.head),
                               OutRows<kHeadDim>(p, dout, work.sequence, work.head),
                               work.first + g * 64, length, space.Own(round, g));
      }
      CopyPairs<kHeadDim>(QkvRows<kHeadDim>(p, 1, work.sequence, work.head),
                          QkvRows<kHeadDim>(p, 2, work.sequence, work.head), keys.first, keys.count,
                          length, space, ring, base, [](int, int) {});
      base += keys.count;
    }
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  for (int round = 0, base = 0; work.Next(); ++round) {
    const KeyTiles keys(p, work, G::kCount);
    const int first = work.first + group * 64, seen = first / 64 + 1 - keys.first;
    if (group >= keys.idle) {
      QueryGradient<kHeadDim, kDropout>(p, law, state, work.sequence, work.head, first, keys,
                                        space.Own(round, group), space, ring, base, sums[group],
                                        out, dqkv);
    }
    ring.Skip(base + (group >= keys.idle ? seen : 0), base + keys.count);
    ring.FreeOwn(round);
    base += keys.count;
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  using G = QueryGroups<kHeadDim, kDropout>;
  CausalWork work;
  int blocks = 0;
  const cudaError_t error = PlanWork(p, G::kRows, true, &work, &blocks);
  if (error != cudaSuccess) return error;
  return LaunchDependent(QueryGradientKernel<kHeadDim, kDropout>,
                         {.grid = dim3(blocks),
                          .block = dim3(G::kThreads),
                          .shared_bytes = QuerySpace<kHeadDim, kDropout>::kBytes},
                         stream, p, MakeDropoutLaw(p.dropout), work, state, gradients.out,
                         gradients.dout, static_cast<uint32_t*>(gradients.dqkv));
}

}  // namespace

cudaError_t LaunchQueryGradient(const CudaCausalAttentionParams& params,
                                const CudaCausalAttentionGradients& gradients,
                                const CausalAttentionState& state, cudaStream_t stream) {
  const bool drops = params.dropout.rate > 0;
  switch (params.head_dim) {
    case 64:
      return drops ? Launch<64, true>(params, gradients, state, stream)
                   : Launch<64, false>(params, gradients, state, stream);
    case 80:
      return drops ? Launch<80, true>(params, gradients, state, stream)
                   : Launch<80, false>(params, gradients, state, stream);
    case 128:
      return drops ? Launch<128, true>(params, gradients, state, stream)
                   : Launch<128, false>(params, gradients, state, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
