// Causal attention for training, backward, bf16 on the tensor cores, in two kernels, so that
// nothing is added by two blocks:
//
//   dK, dV   a warpgroup keeps 64 keys and meets the tiles of queries:  S' = K Q^T, dP' = V dO^T,
//            dV += P' dO, dK += dS' Q
//   dQ       a warpgroup keeps 64 queries and meets the tiles of keys:  S = Q K^T, dP = dO V^T,
//            dQ += dS K
//
// with P = 2^(scale log2(e) S - log sum) and dS = P (dP - delta); dropout's mask is on P in dV and
// on dP in dS. P and dS stay in registers, where the products want them. A tile's two products for
// the scores are issued together; those with P and dS run while the next tile's are issued.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

constexpr float kLog2E = 1.44269504f;

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
using KeyGroups = Groups<2, 232>;
template <int kHeadDim>
using KeySpace = TileSpace<kHeadDim, KeyGroups, 2>;
template <int kHeadDim>
using KeyRing = TileRing<KeySpace<kHeadDim>, KeyGroups>;

// dP before dropout becomes dS; `kept` and `delta` of element e.
template <bool kDropout, typename Kept, typename Delta>
__device__ __forceinline__ void ScoreGradients(Kept kept, float dropout_scale, Delta delta,
                                               const float (&p)[32], float (&dp)[32]) {
#pragma unroll
  for (int e = 0; e < 32; ++e) {
    const float factor = !kDropout ? 1.0f : kept(e) ? dropout_scale : 0.0f;
    dp[e] = p[e] * fmaf(dp[e], factor, -delta(e));
  }
}

// dQ of a warpgroup's 64 queries from `first` on, whose keys are the thread block's pairs from
// `base` on.
template <int kHeadDim, bool kDropout>
__device__ __forceinline__ void QueryGradient(
    const CudaCausalAttentionParams& p, const DropoutLaw& law, const CausalAttentionState& state,
    int sequence, int head, int first, const KeyTiles& keys, const uint8_t* q,
    const QuerySpace<kHeadDim, kDropout>& space, QueryRing<kHeadDim, kDropout>& ring, int base,
    uint32_t* dqkv) {
  constexpr int kTileBytes = QuerySpace<kHeadDim, kDropout>::kTileBytes;
  const int length = static_cast<int>(p.length);
  const QueryPair queries(first, length, keys.begins);
  const float2* const statistics =
      state.statistics + (sequence * p.heads + head) * state.padded_length + queries.position;
  const float2 row0 = __ldcg(statistics), row1 = __ldcg(statistics + 8);
  const float scale = p.scale * kLog2E;
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
      s[e] = ptx::Exp2(fmaf(s[e], scale, e / 2 % 2 == 0 ? -row0.x : -row1.x));
    }
    if (queries.Hides(key, first)) HideKeys(queries, key, 0.0f, s);
    ptx::WgmmaWait<1>();
    ptx::WgmmaResults(dp);
    ScoreGradients<kDropout>(
        [&](int e) { return (decisions[e / 8][e / 2 % 4] >> (15 + e % 2 * 16) & 1) != 0; },
        law.scale, [&](int e) { return e / 2 % 2 == 0 ? row0.y : row1.y; }, s, dp);
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
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(QueryGroups<kHeadDim, kDropout>::kThreads, 1)
    QueryGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                        const __grid_constant__ DropoutLaw law,
                        const __grid_constant__ CausalWork shape,
                        const __grid_constant__ CausalAttentionState state, const void* dout,
                        uint32_t* dqkv) {
  using G = QueryGroups<kHeadDim, kDropout>;
  extern __shared__ uint8_t unaligned[];
  const QuerySpace<kHeadDim, kDropout> space(unaligned);
  __shared__ QueryRing<kHeadDim, kDropout> ring;
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = threadIdx.x / 128;
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
                                        space.Own(round, group), space, ring, base, dqkv);
    }
    ring.Skip(base + (group >= keys.idle ? seen : 0), base + keys.count);
    ring.FreeOwn(round);
    base += keys.count;
  }
}

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

// Behind the last query that sees a key.
__device__ __forceinline__ int QueryEnd(const CudaCausalAttentionParams& p,
                                        const CausalAttentionState& state, int sequence, int key) {
  const int length = static_cast<int>(p.length);
  if (p.document_begin == nullptr) return length;
  return __ldcg(state.document_end + sequence * p.length + min(key, length - 1));
}

// What a block of keys meets.
struct QueryTiles {
  int groups;  // warpgroups that have keys
  int first;   // tile
  int count;

  __device__ __forceinline__ QueryTiles(const CudaCausalAttentionParams& p,
                                        const CausalAttentionState& state, const Schedule& work) {
    groups = min((static_cast<int>(p.length) - work.first + 63) / 64, KeyGroups::kCount);
    first = work.first / 64;
    const int last_key = work.first + KeyGroups::kRows - 1;
    count = (QueryEnd(p, state, work.sequence, last_key) + 63) / 64 - first;
  }
};

// Of each pair in the ring: the statistics of its queries.
template <int kHeadDim>
using RingStatistics = float2[KeySpace<kHeadDim>::kStages][64];

// dK and dV of a warpgroup's 64 keys, whose queries are the thread block's pairs from `base` on;
// the first `group` of them are all before the keys.
template <int kHeadDim, bool kDropout>
__device__ __forceinline__ void KeyGradient(
    const CudaCausalAttentionParams& p, const DropoutLaw& law, const CausalAttentionState& state,
    int sequence, int head, int group, const QueryTiles& queries, const uint8_t* k,
    const KeySpace<kHeadDim>& space, const RingStatistics<kHeadDim>& statistics,
    KeptExchange& exchange, KeyRing<kHeadDim>& ring, int base, uint32_t* dqkv) {
  constexpr int kTileBytes = KeySpace<kHeadDim>::kTileBytes;
  // Two results of 128 leave no registers for products of the tile before beside those of this one.
  constexpr bool kOverlaps = kHeadDim < 128;
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
  const auto add = [&](const uint8_t* pair) {
    ptx::WgmmaOperands(weights);
    ptx::WgmmaOperands(dweights);
    ptx::WgmmaFence();
    issue(pair);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(dk);
    ptx::WgmmaResults(dv);
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
  const auto meet = [&](int tile, auto has_previous) {
    const int query = tile * 64, index = base + tile - queries.first;
    [[maybe_unused]] const uint8_t* const before = q;
    q = space.Pair(index);
    // The statistics of this lane's columns, two queries a vector, 4 vectors apart.
    const auto* const columns =
        reinterpret_cast<const float4*>(statistics[index % KeySpace<kHeadDim>::kStages]) +
        threadIdx.x % 4;
    float s[32], dp[32];
    KeptOfKeyRows kept;
    ring.WaitFull(index);
    ptx::WgmmaFence();
    ptx::TileScores<kHeadDim>(k, q, s);
    ptx::WgmmaCommit();
    ptx::TileScores<kHeadDim>(k + kTileBytes, q + kTileBytes, dp);
    ptx::WgmmaCommit();
    if constexpr (kOverlaps) {
      if constexpr (decltype(has_previous)::value) issue(before);
      ptx::WgmmaCommit();
    }
    draw(query, index, kept);
    ptx::WgmmaWait<kOverlaps ? 2 : 1>();
    ptx::WgmmaResults(s);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float4 pair = columns[4 * j];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[4 * j + 2 * i] = ptx::Exp2(fmaf(s[4 * j + 2 * i], scale, -pair.x));
        s[4 * j + 2 * i + 1] = ptx::Exp2(fmaf(s[4 * j + 2 * i + 1], scale, -pair.z));
      }
    }
    if (query == first || query + 64 > first_stop) {
      const int stop[2] = {QueryEnd(p, state, sequence, key),
                           QueryEnd(p, state, sequence, key + 8)};
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        const int at = query + e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2, i = e / 2 % 2;
        if (at < key + 8 * i || at >= stop[i]) s[e] = 0.0f;
      }
    }
    ptx::WgmmaWait<kOverlaps ? 1 : 0>();
    ptx::WgmmaResults(dp);
    ScoreGradients<kDropout>(
        kept, law.scale,
        [&](int e) {
          const float4 pair = columns[e / 4 * 4];
          return e % 2 == 0 ? pair.y : pair.w;
        },
        s, dp);
    if constexpr (kOverlaps) {
      ptx::WgmmaWait<0>();
      ptx::WgmmaResults(dk);
      ptx::WgmmaResults(dv);
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
  ring.Skip(base, base + group);
  const int begin = queries.first + group, end = queries.first + queries.count;
  if constexpr (kOverlaps) {
    meet(begin, std::false_type());
    for (int tile = begin + 1; tile < end; ++tile) meet(tile, std::true_type());
    add(q);
    ring.Free(base + queries.count - 1);
  } else {
    for (int tile = begin; tile < end; ++tile) meet(tile, std::false_type());
  }
  const int64_t row_words = 3 * p.heads * (kHeadDim / 2);
  uint32_t* const to = dqkv + (sequence * p.length + first) * row_words + head * (kHeadDim / 2);
  const float dv_scale = kDropout ? law.scale : 1.0f;
  StoreTile<kHeadDim>(dk, p.scale, p.scale, length - first, row_words, to + row_words / 3);
  StoreTile<kHeadDim>(dv, dv_scale, dv_scale, length - first, row_words, to + row_words / 3 * 2);
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(KeyGroups::kThreads, 1)
    KeyGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                      const __grid_constant__ DropoutLaw law,
                      const __grid_constant__ CausalWork shape,
                      const __grid_constant__ CausalAttentionState state, const void* dout,
                      uint32_t* dqkv) {
  using G = KeyGroups;
  extern __shared__ uint8_t unaligned[];
  const KeySpace<kHeadDim> space(unaligned);
  __shared__ KeyRing<kHeadDim> ring;
  __shared__ __align__(16) RingStatistics<kHeadDim> statistics;
  __shared__ KeptExchange exchange[kDropout ? G::kCount : 1];
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int length = static_cast<int>(p.length), group = threadIdx.x / 128;
  Schedule work(shape);
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    for (int round = 0, base = 0; work.Next(); ++round) {
      const QueryTiles queries(p, state, work);
      ring.WaitOwnFree(round);
      for (int g = 0; g < queries.groups; ++g) {
        CopyOwnTiles<kHeadDim>(QkvRows<kHeadDim>(p, 1, work.sequence, work.head),
                               QkvRows<kHeadDim>(p, 2, work.sequence, work.head),
                               work.first + g * 64, length, space.Own(round, g));
      }
      const float2* const source =
          state.statistics + (work.sequence * p.heads + work.head) * state.padded_length;
      CopyPairs<kHeadDim>(
          QkvRows<kHeadDim>(p, 0, work.sequence, work.head),
          OutRows<kHeadDim>(p, dout, work.sequence, work.head), queries.first, queries.count,
          length, space, ring, base, [&](int tile, int index) {
            const int pair = threadIdx.x % 128 * 2;
            if (pair >= 64) return;
            float2* const to = &statistics[index % KeySpace<kHeadDim>::kStages][pair];
            ptx::CopyOrZero(ptx::SharedAddress(to), source + tile * 64 + pair, true);
          });
      base += queries.count;
    }
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  for (int round = 0, base = 0; work.Next(); ++round) {
    const QueryTiles queries(p, state, work);
    if (group < queries.groups) {
      KeyGradient<kHeadDim, kDropout>(p, law, state, work.sequence, work.head, group, queries,
                                      space.Own(round, group), space, statistics,
                                      exchange[kDropout ? group : 0], ring, base, dqkv);
    } else {
      ring.Skip(base, base + queries.count);
    }
    ring.FreeOwn(round);
    base += queries.count;
  }
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  using Queries = QueryGroups<kHeadDim, kDropout>;
  const DropoutLaw law = MakeDropoutLaw(p.dropout);
  auto* const dqkv = static_cast<uint32_t*>(gradients.dqkv);
  CausalWork work;
  int blocks = 0;
  cudaError_t error = PlanWork(p, Queries::kRows, true, &work, &blocks);
  if (error != cudaSuccess) return error;
  error = LaunchDependent(QueryGradientKernel<kHeadDim, kDropout>,
                          {.grid = dim3(blocks),
                           .block = dim3(Queries::kThreads),
                           .shared_bytes = QuerySpace<kHeadDim, kDropout>::kBytes},
                          stream, p, law, work, state, gradients.dout, dqkv);
  if (error != cudaSuccess) return error;
  error = PlanWork(p, KeyGroups::kRows, false, &work, &blocks);
  if (error != cudaSuccess) return error;
  return LaunchDependent(KeyGradientKernel<kHeadDim, kDropout>,
                         {.grid = dim3(blocks),
                          .block = dim3(KeyGroups::kThreads),
                          .shared_bytes = KeySpace<kHeadDim>::kBytes},
                         stream, p, law, work, state, gradients.dout, dqkv);
}

template <int kHeadDim>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  return p.dropout.rate > 0 ? Launch<kHeadDim, true>(p, gradients, state, stream)
                            : Launch<kHeadDim, false>(p, gradients, state, stream);
}

}  // namespace

cudaError_t LaunchCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                          const CudaCausalAttentionGradients& gradients,
                                          const CausalAttentionState& state, cudaStream_t stream) {
  switch (params.head_dim) {
    case 64:
      return Launch<64>(params, gradients, state, stream);
    case 80:
      return Launch<80>(params, gradients, state, stream);
    case 128:
      return Launch<128>(params, gradients, state, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
