// Prefill attention, bf16: a block takes 64 rows of a head of a segment for each of its warpgroups,
// which walk the sequence in tiles of 64 positions with borders at multiples of 64. So a row sees
// the same tiles in the same order wherever its chunk begins. One more warpgroup copies the tiles
// into a ring and stores new ones in the cache (prefill_copy.cuh); the others compute the scores of
// a tile while the tile before it is added to the result, each at its own pace. Blocks of rows
// follow each other in a thread block, the tiles of the next one are on their way while this one's
// results are stored.
//
// Shared memory, tiles as in prefill_wgmma.cuh: twice Q of each warpgroup, then the ring of {K, V}.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/attention/cuda/prefill_copy.cuh"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"

namespace hanlin {
namespace {

using ptx::kTilePositions;

using G = Groups<3, 144>;  // that compute
template <int kHeadDim>
using SpaceOf = TileSpace<kHeadDim, G, 1, kHeadDim == 128 ? 4 : 8>;
template <int kHeadDim>
using RingOf = PrefillRing<SpaceOf<kHeadDim>, G>;

// Hides the scores of positions behind a row's own. `first` is the tile's first position plus this
// thread's first column, `position` that of its first row.
__device__ __forceinline__ void Mask(int first, int position, float (&s)[32]) {
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    if (first + j / 4 * 8 + j % 2 > position + j / 2 % 2 * 8) s[j] = -INFINITY;
  }
}

// A warpgroup's 64 rows from position `first` on, which see `tiles` tiles, the thread block's pairs
// from `base` on.
template <int kHeadDim>
__device__ __forceinline__ void Attend(const uint8_t* q, int first, int tiles, float scale,
                                       const SpaceOf<kHeadDim>& space, RingOf<kHeadDim>& ring,
                                       int base, float (&o)[kHeadDim / 2], SoftmaxState& state) {
  constexpr int kTileBytes = SpaceOf<kHeadDim>::kTileBytes;
  const int lane = threadIdx.x % 32;
  const int position = first + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const int unmasked = min((first + 1) / kTilePositions, tiles);
  const auto wait = [&](int tile) {
    ring.WaitFull(base + tile);
    return space.Pair(base + tile);
  };
  uint32_t weights[4][4];
  float factor[2];
  const uint8_t* stage = wait(0);
  {
    float s[32];
    ptx::WgmmaFence();
    ptx::TileScores<kHeadDim>(q, stage, s);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    if (unmasked == 0) Mask(lane % 4 * 2, position, s);
    Softmax(s, scale, state, factor);
    PackWeights(s, weights);
  }
  // Scores of a tile, and their softmax while the tile before is added to o.
  const auto add_tile = [&](int tile, auto masked) {
    const uint8_t* before = stage;
    stage = wait(tile);
    float s[32];
    ptx::WgmmaFence();
    ptx::TileScores<kHeadDim>(q, stage, s);
    ptx::WgmmaCommit();
    ptx::TileValues<kHeadDim>(weights, before + kTileBytes, o);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    if constexpr (decltype(masked)::value) {
      Mask(tile * kTilePositions + lane % 4 * 2, position, s);
    }
    Softmax(s, scale, state, factor);
    ptx::WgmmaWait<0>();
    ring.Free(base + tile - 1);
#pragma unroll
    for (int j = 0; j < kHeadDim / 2; ++j) o[j] *= factor[j / 2 % 2];
    PackWeights(s, weights);
  };
  int tile = 1;
  for (; tile < unmasked; ++tile) add_tile(tile, std::false_type());
  for (; tile < tiles; ++tile) add_tile(tile, std::true_type());
  ptx::WgmmaFence();
  ptx::TileValues<kHeadDim>(weights, stage + kTileBytes, o);
  ptx::WgmmaCommit();
  ptx::WgmmaWait<0>();
}

template <int kHeadDim>
__global__ void __launch_bounds__(G::kThreads, 1)
    PrefillKernel(const __grid_constant__ PrefillAttentionParams p,
                  const __grid_constant__ PrefillMaps maps, float scale) {
  extern __shared__ uint8_t unaligned[];
  const SpaceOf<kHeadDim> space(unaligned);
  __shared__ RingOf<kHeadDim> ring;
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int group = ptx::Uniform(threadIdx.x / 128);
  if (group == G::kCount) {
    ptx::GiveRegisters<G::kCopyRegisters>();
    if (threadIdx.x / 64 % 2 == 0) {
      CopyPrefillTiles<kHeadDim, G>(p, maps, space, ring);
    } else {
      StoreNewKeys<kHeadDim, G>(p, space, ring);
    }
    return;
  }
  ptx::TakeRegisters<G::kComputeRegisters>();
  for (int round = 0, base = 0;; ++round) {
    const PrefillItem item = ring.WaitItem(base);
    if (item.tiles == 0) return;
    const int first = item.first + group * 64, last = min(first + 64, item.end);
    int seen = 0;
    if (first >= 0) {
      seen = item.TilesUpTo(last);
      float o[kHeadDim / 2] = {};
      SoftmaxState state;
      Attend<kHeadDim>(space.Own(round, group), item.segment.context_tokens + first, seen, scale,
                       space, ring, base, o, state);
      ring.Free(base + seen - 1);
      ring.FreeOwn(round);
      float factor[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float sum = state.sum[i];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        factor[i] = 1.0f / sum;
      }
      const int64_t row_words = int64_t{p.kv.heads} * (kHeadDim / 2);
      StoreTile<kHeadDim>(o, factor[0], factor[1], last - first, row_words,
                          static_cast<uint32_t*>(p.out) +
                              (item.segment.first_token + first) * row_words +
                              item.head * (kHeadDim / 2));
    } else {
      ring.FreeOwn(round);
    }
    ring.Skip(base + seen, base + item.tiles);
    base += item.tiles;
  }
}

template <int kHeadDim>
cudaError_t Launch(const PrefillAttentionParams& p, const PrefillMaps& maps, cudaStream_t stream) {
  const int64_t items =
      int64_t{p.kv.heads} * p.num_segments * ((p.max_tokens + G::kRows - 1) / G::kRows);
  int blocks = 0;
  const cudaError_t error = BlocksFor(items, &blocks);
  if (error != cudaSuccess) return error;
  const float scale = 1.44269504f / sqrtf(kHeadDim);  // exp(x) = 2^(x log2 e)
  return LaunchDependent(
      PrefillKernel<kHeadDim>,
      {.grid = dim3(blocks), .block = dim3(G::kThreads), .shared_bytes = SpaceOf<kHeadDim>::kBytes},
      stream, p, maps, scale);
}

}  // namespace

cudaError_t LaunchPrefillAttention(const PrefillAttentionParams& params, const PrefillMaps& maps,
                                   cudaStream_t stream) {
  switch (params.kv.head_dim) {
    case 64:
      return Launch<64>(params, maps, stream);
    case 80:
      return Launch<80>(params, maps, stream);
    case 128:
      return Launch<128>(params, maps, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
