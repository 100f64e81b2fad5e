// dK and dV of 64 keys, the work of a warpgroup: it meets the tiles of queries,
//
//   S' = K Q^T,  dP' = V dO^T,  dV += P' dO,  dK += dS' Q
//
// with P = 2^(scale log2(e) S - log sum) and dS = P (dP - delta); dropout's mask is on P in dV and
// on dP in dS. P' and dS' stay in registers, where the products want them. A tile's two products
// for the scores are issued together. What runs beside the exponentials: with three warpgroups the
// products of the others, with two those of P' and dS' of the tile before where registers last.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_GRADIENT_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_GRADIENT_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/attention/cuda/causal_column_sums.cuh"
#include "kernels/attention/cuda/causal_key_dropout.cuh"
#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"

namespace hanlin {

inline constexpr float kLog2E = 1.44269504f;

// dP before dropout becomes dS; `kept` and what is added, `delta`, of element e.
template <bool kDropout, typename Kept, typename Delta>
__device__ __forceinline__ void ScoreGradients(Kept kept, float dropout_scale, Delta delta,
                                               const float (&p)[32], float (&dp)[32]) {
#pragma unroll
  for (int e = 0; e < 32; ++e) {
    const float factor = !kDropout ? 1.0f : kept(e) ? dropout_scale : 0.0f;
    dp[e] = p[e] * fmaf(dp[e], factor, delta(e));
  }
}

// Behind the last query that sees a key.
__device__ __forceinline__ int QueryEnd(const CudaCausalAttentionParams& p,
                                        const CausalAttentionState& state, int sequence, int key) {
  const int length = static_cast<int>(p.length);
  if (p.document_begin == nullptr) return length;
  return __ldcg(state.document_end + sequence * p.length + min(key, length - 1));
}

// The tiles of queries that the keys of some warpgroups meet; those of the g-th do not meet the
// first g.
struct QueryTiles {
  int groups;  // warpgroups that have keys
  int first;   // tile
  int count;

  __device__ __forceinline__ QueryTiles(const CudaCausalAttentionParams& p,
                                        const CausalAttentionState& state, int sequence,
                                        int first_key, int most_groups)
      : groups(min(most_groups, (static_cast<int>(p.length) - first_key + 63) / 64)),
        first(first_key / 64),
        count(ptx::Uniform(
            (QueryEnd(p, state, sequence, first_key + most_groups * 64 - 1) + 63) / 64 - first)) {}
};

// Of each pair in the ring: the statistics of its queries.
template <typename Space>
using RingStatistics = float2[Space::kStages][64];

// What a warpgroup has for its 64 keys; `group` of the thread block, which has met `queries` as its
// pairs from `base` on.
template <int kHeadDim, bool kDropout, typename Space, typename Ring>
struct KeyGradient {
  // Whether the products of the tile before run beside those of this one. Two results of 128 leave
  // no registers for it, nor do three warpgroups, which overlap each other instead.
  static constexpr bool kOverlaps = kHeadDim == 80;
  static constexpr int kTileBytes = Space::kTileBytes;
  const CudaCausalAttentionParams& p;
  const DropoutLaw& law;
  const CausalAttentionState& state;
  const Space& space;
  Ring& ring;
  const RingStatistics<Space>& statistics;
  KeptExchange& exchange;
  WarpSums<kHeadDim, 2>& sums;
  int sequence, head, group;

  __device__ __forceinline__ void Run(const QueryTiles& queries, const uint8_t* k, int base,
                                      uint32_t* dqkv) const {
    const int length = static_cast<int>(p.length), first = (queries.first + group) * 64;
    // This lane's first key, and what lies behind the queries that see the warpgroup's first.
    const int key = first + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    const int first_stop = QueryEnd(p, state, sequence, first);
    const float scale = p.scale * kLog2E;
    float dk[kHeadDim / 2] = {}, dv[kHeadDim / 2] = {};
    uint32_t weights[4][4], dweights[4][4];
    const uint8_t* q = nullptr;
    // The exchange may begin with the half that a slow warp still reads for the keys before.
    if constexpr (kDropout) ptx::NamedBarrier(group + 1, 128);
    const auto issue = [&](const uint8_t* pair) {
      ptx::TileValues<kHeadDim>(weights, pair + kTileBytes, dv);
      ptx::TileValues<kHeadDim>(dweights, pair, dk);
    };
    const auto wait = [&] {
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(dk);
      ptx::WgmmaResults(dv);
    };
    const auto add = [&](const uint8_t* pair) {
      ptx::WgmmaOperands(weights);
      ptx::WgmmaOperands(dweights);
      ptx::WgmmaFence();
      issue(pair);
      ptx::WgmmaCommit();
      wait();
    };
    const auto draw = [&](int query, int index, KeptOfKeyRows& kept) {
      if constexpr (kDropout) {
        const auto token = static_cast<uint32_t>(sequence * p.length + query);
        kept = DecideOnKeyRows < kHeadDim == 64
                   ? 4
                   : 1 > (law, p.dropout.first_row + token,
                          (p.first_head + head) * kHeadColumns + first, index, exchange);
      }
    };
    const auto meet = [&](int step, auto has_previous) {
      const int query = (queries.first + step) * 64, index = base + step;
      [[maybe_unused]] const uint8_t* const before = q;
      q = space.Pair(index);
      // The statistics of this lane's columns, two queries a vector, 4 vectors apart.
      const auto* const columns =
          reinterpret_cast<const float4*>(statistics[index % Space::kStages]) + threadIdx.x % 4;
      float s[32], dp[32];
      KeptOfKeyRows kept;
      ring.WaitFull(index);
      // The products add to the statistics; with dropout those of dP come behind the mask.
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float4 pair = columns[4 * j];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          s[4 * j + 2 * i] = pair.x;
          s[4 * j + 2 * i + 1] = pair.z;
          dp[4 * j + 2 * i] = pair.y;
          dp[4 * j + 2 * i + 1] = pair.w;
        }
      }
      ptx::WgmmaResults(s);
      ptx::WgmmaResults(dp);
      ptx::WgmmaFence();
      ptx::TileScores<kHeadDim, true>(k, q, s);
      ptx::WgmmaCommit();
      ptx::TileScores<kHeadDim, !kDropout>(k + kTileBytes, q + kTileBytes, dp);
      ptx::WgmmaCommit();
      if constexpr (kOverlaps) {
        if constexpr (decltype(has_previous)::value) issue(before);
        ptx::WgmmaCommit();
      }
      draw(query, index, kept);
      ptx::WgmmaWait<kOverlaps ? 2 : 1>();
      ptx::WgmmaResults(s);
#pragma unroll
      for (float& score : s) score = ptx::Exp2(score * scale);
      if (query == first || query + 64 > first_stop) Hide(query, key, s);
      ptx::WgmmaWait<kOverlaps ? 1 : 0>();
      ptx::WgmmaResults(dp);
      if constexpr (kDropout) {
        ScoreGradients<kDropout>(
            kept, law.scale,
            [&](int e) {
              const float4 pair = columns[e / 4 * 4];
              return e % 2 == 0 ? pair.y : pair.w;
            },
            s, dp);
      } else {
#pragma unroll
        for (int e = 0; e < 32; ++e) dp[e] *= s[e];
      }
      if constexpr (kOverlaps) {
        wait();
        if constexpr (decltype(has_previous)::value) ring.Free(index - 1);
      }
      PackWeights(s, weights);
      if constexpr (kDropout) kept.Drop(weights);
      PackWeights(dp, dweights);
      if constexpr (!kOverlaps) {
        add(q);
        ring.Free(index);
      }
    };
    ring.Skip(base, base + group);  // before the keys
    if constexpr (kOverlaps) {
      meet(group, std::false_type());
      for (int step = group + 1; step < queries.count; ++step) meet(step, std::true_type());
      add(q);
      ring.Free(base + queries.count - 1);
    } else {
      for (int step = group; step < queries.count; ++step) meet(step, std::false_type());
    }
    const int64_t row_words = 3 * p.heads * (kHeadDim / 2);
    uint32_t* const to = dqkv + (sequence * p.length + first) * row_words + head * (kHeadDim / 2);
    const float dv_scale = kDropout ? law.scale : 1.0f;
    StoreTile<kHeadDim>(dk, p.scale, p.scale, length - first, row_words, to + row_words / 3);
    StoreTile<kHeadDim>(dv, dv_scale, dv_scale, length - first, row_words, to + row_words / 3 * 2);
    ptx::NamedBarrier(group + 1, 128);  // a slow warp may still read the sums of the keys before
    AddUpRows<kHeadDim>(dk, sums[0][threadIdx.x % 128 / 32]);
    AddUpRows<kHeadDim>(dv, sums[1][threadIdx.x % 128 / 32]);
    StoreColumnSums<kHeadDim, 2>({p.scale, dv_scale}, sums, group + 1, p.heads * kHeadDim,
                                 PartialSums(p, state, sequence, head, first, 1));
  }

 private:
  // Clears the probabilities of queries that do not see this lane's keys.
  __device__ __forceinline__ void Hide(int query, int key, float (&s)[32]) const {
    const int stop[2] = {QueryEnd(p, state, sequence, key), QueryEnd(p, state, sequence, key + 8)};
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      const int at = query + e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2, i = e / 2 % 2;
      if (at < key + 8 * i || at >= stop[i]) s[e] = 0.0f;
    }
  }
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_KEY_GRADIENT_CUH_
