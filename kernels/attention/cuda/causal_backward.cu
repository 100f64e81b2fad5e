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
//
// Shared memory: the two tiles of each warpgroup, then the ring of the other side's pairs.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"

namespace hanlin {
namespace {

constexpr float kLog2E = 1.44269504f;

// More warpgroups would have too few registers; two results of 128 take all there are.
using QueryGroups = Groups<2, 224>;
template <int kHeadDim>
using KeyGroups = Groups<2, kHeadDim == 128 ? 232 : 224>;
using Ring = TileRing<4>;

template <int kHeadDim>
constexpr int kSharedBytes = (2 * 2 + 2 * Ring::kStages) * ptx::HeadTile<kHeadDim>::kBytes
                             + kTileAlignment;

// dP before dropout becomes dS; `delta` of element e.
template <bool kDropout, typename Delta>
__device__ __forceinline__ void ScoreGradients(uint32_t kept, float dropout_scale, Delta delta,
                                               const float (&p)[32], float (&dp)[32]) {
#pragma unroll
  for (int e = 0; e < 32; ++e) {
    const float factor = !kDropout ? 1.0f : (kept >> e & 1) != 0 ? dropout_scale : 0.0f;
    dp[e] = p[e] * fmaf(dp[e], factor, -delta(e));
  }
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(QueryGroups::kThreads, 1)
    QueryGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                        const __grid_constant__ DropoutLaw law, const CausalAttentionState state,
                        const void* dout, uint32_t* dqkv) {
  using G = QueryGroups;
  constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared = unaligned + (-ptx::SharedAddress(unaligned)) % kTileAlignment;
  uint8_t* const stages = shared + 2 * G::kCount * kTileBytes;
  __shared__ Ring ring;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int head = blockIdx.x, sequence = blockIdx.z, length = static_cast<int>(p.length);
  const int block_first = (gridDim.y - 1 - blockIdx.y) * G::kRows;  // the longest rows start first
  const int groups = min((length - block_first + 63) / 64, G::kCount);
  const int32_t* const begins =
      p.document_begin == nullptr ? nullptr : p.document_begin + sequence * p.length;
  const int first_tile = begins == nullptr ? 0 : __ldcg(begins + block_first) / 64;
  if (threadIdx.x == 0) ring.Init(groups * 4);
  __syncthreads();
  const int group = threadIdx.x / 128;
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    FillRing<kHeadDim>(
        QkvRows<kHeadDim>(p, 1, sequence, head), QkvRows<kHeadDim>(p, 2, sequence, head),
        first_tile, block_first / 64 + groups - first_tile, length, stages, ring, [](int, int) {});
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  if (group >= groups) return;
  const int first = block_first + group * 64;
  uint8_t* const q = shared + group * 2 * kTileBytes;
  LoadOwnTiles<kHeadDim>(QkvRows<kHeadDim>(p, 0, sequence, head),
                         OutRows<kHeadDim>(p, dout, sequence, head), first, length, q);
  const QueryPair queries(first, length, begins);
  const float2* const statistics =
      state.statistics + (sequence * p.heads + head) * state.padded_length + queries.position;
  const float2 row0 = __ldcg(statistics), row1 = __ldcg(statistics + 8);
  const float scale = p.scale * kLog2E;
  const uint32_t dropout_row =
      p.dropout.first_row + static_cast<uint32_t>(sequence * p.length) + queries.position;
  const int tiles = first / 64 + 1 - first_tile;
  float dq[kHeadDim / 2] = {};
  uint32_t weights[4][4];
  const uint8_t* k = stages;
  const auto meet = [&](int index, auto has_previous) {
    const int key = (first_tile + index) * 64;
    [[maybe_unused]] const uint8_t* const before = k;
    k = stages + index % Ring::kStages * 2 * kTileBytes;
    float s[32], dp[32];
    ring.WaitFull(index);
    ptx::WgmmaFence();
    ptx::TileScores<kHeadDim>(q, k, s);
    ptx::WgmmaCommit();
    ptx::TileScores<kHeadDim>(q + kTileBytes, k + kTileBytes, dp);
    ptx::WgmmaCommit();
    if constexpr (decltype(has_previous)::value) ptx::TileValues<kHeadDim>(weights, before, dq);
    ptx::WgmmaCommit();
    uint32_t kept = 0;
    if constexpr (kDropout) {
      kept = KeptOfQueryRows(law, dropout_row, (p.first_head + head) * kHeadColumns + key);
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
        kept, law.scale, [&](int e) { return e / 2 % 2 == 0 ? row0.y : row1.y; }, s, dp);
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(dq);
    if constexpr (decltype(has_previous)::value) ring.Free(index - 1);
    PackWeights(dp, weights);
  };
  meet(0, std::false_type());
  for (int index = 1; index < tiles; ++index) meet(index, std::true_type());
  ptx::WgmmaFence();
  ptx::TileValues<kHeadDim>(weights, k, dq);
  ptx::WgmmaCommit();
  ptx::WgmmaWait<0>();
  ptx::WgmmaResults(dq);
  const int64_t row_words = 3 * p.heads * (kHeadDim / 2);
  StoreTile<kHeadDim>(dq, p.scale, p.scale, length - first, row_words,
                      dqkv + (sequence * p.length + first) * row_words + head * (kHeadDim / 2));
}

// Dropout's decisions of a warpgroup for tiles whose rows are keys. A word is of one query and of
// one key in each 16, which are the 4 warps: each draws for a quarter of the queries and the warps
// exchange bytes. One tile is read while the next is written.
struct alignas(4) KeptExchange {
  uint8_t bytes[2][4][32][4];  // [tile % 2][warp that reads][its lane][warp that wrote]
};

// As KeptOfQueryRows, transposed: `row` is of the tile's first query, `column` of the warpgroup's
// first key, a multiple of 64. By the whole warpgroup.
__device__ __forceinline__ uint32_t KeptOfKeyRows(const DropoutLaw& law, uint32_t row,
                                                  uint32_t column, int index,
                                                  KeptExchange& exchange) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  uint32_t kept[4] = {};  // of each warp, 8 bits
#pragma unroll 1          // at once they would need too many registers
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int j = n / 2, c = n % 2;
      uint32_t words[4];
      DropoutWords(law, row + (2 * warp + j) * 8 + lane % 4 * 2 + c, column + lane / 4 + 8 * i,
                   words);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        kept[w] |= static_cast<uint32_t>(words[w] >= law.threshold) << (4 * j + 2 * i + c);
      }
    }
  }
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    exchange.bytes[index % 2][w][lane][warp] = static_cast<uint8_t>(kept[w]);
  }
  ptx::NamedBarrier(threadIdx.x / 128 + 1, 128);
  return *reinterpret_cast<const uint32_t*>(exchange.bytes[index % 2][warp][lane]);
}

// Clears what dropout takes among packed probabilities.
__device__ __forceinline__ void Drop(uint32_t kept, uint32_t (&weights)[4][4]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = (kept >> 2 * i & 1) != 0 ? 0xffffu : 0u;
    const uint32_t high = (kept >> (2 * i + 1) & 1) != 0 ? 0xffff0000u : 0u;
    weights[i / 4][i % 4] &= low | high;
  }
}

template <int kHeadDim, bool kDropout>
__global__ void __launch_bounds__(KeyGroups<kHeadDim>::kThreads, 1)
    KeyGradientKernel(const __grid_constant__ CudaCausalAttentionParams p,
                      const __grid_constant__ DropoutLaw law, const CausalAttentionState state,
                      const void* dout, uint32_t* dqkv) {
  using G = KeyGroups<kHeadDim>;
  constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared = unaligned + (-ptx::SharedAddress(unaligned)) % kTileAlignment;
  uint8_t* const stages = shared + 2 * G::kCount * kTileBytes;
  // Two results of 128 leave no registers for products of the tile before beside those of this one.
  constexpr bool kOverlaps = kHeadDim < 128;
  __shared__ Ring ring;
  __shared__ __align__(16) float2 statistics[Ring::kStages][64];
  __shared__ KeptExchange exchange[kDropout ? G::kCount : 1];
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int head = blockIdx.x, sequence = blockIdx.z, length = static_cast<int>(p.length);
  const int block_first = blockIdx.y * G::kRows;  // the first keys meet the most queries
  const int groups = min((length - block_first + 63) / 64, G::kCount);
  const int32_t* const ends =
      p.document_begin == nullptr ? nullptr : state.document_end + sequence * p.length;
  // Behind the last query that a key of the block meets.
  const int end = ends == nullptr ? length : __ldcg(ends + min(block_first + G::kRows, length) - 1);
  const int first_tile = block_first / 64, tiles = (end + 63) / 64 - first_tile;
  if (threadIdx.x == 0) ring.Init(groups * 4);
  __syncthreads();
  const int group = threadIdx.x / 128;
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    const float2* const source =
        state.statistics + (sequence * p.heads + head) * state.padded_length;
    FillRing<kHeadDim>(QkvRows<kHeadDim>(p, 0, sequence, head),
                       OutRows<kHeadDim>(p, dout, sequence, head), first_tile, tiles, length,
                       stages, ring, [&](int tile, int stage) {
                         const int pair = threadIdx.x % 128 * 2;
                         if (pair >= 64) return;
                         ptx::CopyOrZero(ptx::SharedAddress(&statistics[stage][pair]),
                                         source + tile * 64 + pair, true);
                       });
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  if (group >= groups) return;
  const int first = block_first + group * 64;
  uint8_t* const k = shared + group * 2 * kTileBytes;
  LoadOwnTiles<kHeadDim>(QkvRows<kHeadDim>(p, 1, sequence, head),
                         QkvRows<kHeadDim>(p, 2, sequence, head), first, length, k);
  // This lane's keys, and what lies behind the queries that see them.
  const int key = first + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  int stop[2] = {length, length}, first_stop = length;
  if (ends != nullptr) {
    stop[0] = __ldcg(ends + min(key, length - 1));
    stop[1] = __ldcg(ends + min(key + 8, length - 1));
    first_stop = __ldcg(ends + first);
  }
  const float scale = p.scale * kLog2E;
  float dk[kHeadDim / 2] = {}, dv[kHeadDim / 2] = {};
  uint32_t weights[4][4], dweights[4][4];
  for (int index = 0; index < group; ++index) ring.Free(index);  // before its keys
  const uint8_t* q = stages;
  const auto issue = [&](const uint8_t* pair) {
    ptx::TileValues<kHeadDim>(weights, pair + kTileBytes, dv);
    ptx::TileValues<kHeadDim>(dweights, pair, dk);
  };
  const auto add = [&](const uint8_t* pair) {
    ptx::WgmmaFence();
    issue(pair);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    ptx::WgmmaResults(dk);
    ptx::WgmmaResults(dv);
  };
  const auto draw = [&](int index) {
    const auto token = static_cast<uint32_t>(sequence * p.length + (first_tile + index) * 64);
    return KeptOfKeyRows(law, p.dropout.first_row + token,
                         (p.first_head + head) * kHeadColumns + first, index, exchange[group]);
  };
  const auto meet = [&](int index, auto has_previous) {
    const int query = (first_tile + index) * 64;
    [[maybe_unused]] const uint8_t* const before = q;
    q = stages + index % Ring::kStages * 2 * kTileBytes;
    // The statistics of this lane's columns, two queries a vector, 4 vectors apart.
    const auto* const columns =
        reinterpret_cast<const float4*>(statistics[index % Ring::kStages]) + threadIdx.x % 4;
    float s[32], dp[32];
    uint32_t kept = 0;
    if constexpr (kDropout) kept = draw(index);  // later there would be too few registers
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
    if constexpr (kDropout) Drop(kept, weights);
    PackWeights(dp, dweights);
    if constexpr (!kOverlaps) {
      add(q);
      ring.Free(index);
    }
  };
  meet(group, std::false_type());
  for (int index = group + 1; index < tiles; ++index) meet(index, std::true_type());
  if constexpr (kOverlaps) add(q);
  const int64_t row_words = 3 * p.heads * (kHeadDim / 2);
  uint32_t* const to = dqkv + (sequence * p.length + first) * row_words + head * (kHeadDim / 2);
  const float dv_scale = kDropout ? law.scale : 1.0f;
  StoreTile<kHeadDim>(dk, p.scale, p.scale, length - first, row_words, to + row_words / 3);
  StoreTile<kHeadDim>(dv, dv_scale, dv_scale, length - first, row_words, to + row_words / 3 * 2);
}

template <int kHeadDim, bool kDropout>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  using G = QueryGroups;  // KeyGroups has the same shape
  const LaunchShape shape = {
      .grid = dim3(p.heads, (p.length + G::kRows - 1) / G::kRows, p.sequences),
      .block = dim3(G::kThreads),
      .shared_bytes = kSharedBytes<kHeadDim>};
  const DropoutLaw law = MakeDropoutLaw(p.dropout);
  auto* const dqkv = static_cast<uint32_t*>(gradients.dqkv);
  const cudaError_t error = LaunchDependent(QueryGradientKernel<kHeadDim, kDropout>, shape, stream,
                                            p, law, state, gradients.dout, dqkv);
  if (error != cudaSuccess) return error;
  return LaunchDependent(KeyGradientKernel<kHeadDim, kDropout>, shape, stream, p, law, state,
                         gradients.dout, dqkv);
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
