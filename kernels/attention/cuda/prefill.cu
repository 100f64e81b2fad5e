// Prefill attention, bf16: a block takes 64 rows of a head of a segment for each of its warpgroups,
// which walk the cache in tiles of 64 positions with borders at multiples of 64. So a row sees the
// same tiles in the same order wherever its chunk begins. One more warpgroup copies the tiles into
// a ring, a cache block a warp; the others compute the scores of a tile while the tile before it is
// added to the result, each at its own pace.
//
// Shared memory, tiles as in prefill_wgmma.cuh: Q of each warpgroup, then the ring of {K, V}.
#include <cmath>
#include <type_traits>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/attention/cuda/tile_softmax.cuh"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"

namespace hanlin {
namespace {

using ptx::kTilePositions;

constexpr int kGroups = 3;  // warpgroups that compute
constexpr int kGroupRows = 64;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kThreads = (kGroups + 1) * 128;
constexpr int kStages = 4;
static_assert(kStages >= kGroups, "a warpgroup leaves up to kGroups - 1 tiles at the end alone");
// Of a thread; together all that a multiprocessor has.
constexpr int kComputeRegisters = 152;
constexpr int kCopyRegisters = 56;

constexpr int kAlignment = 1024;  // of a tile

template <int kHeadDim>
struct Shape {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  static constexpr int kSharedBytes = (kGroups + 2 * kStages) * kTileBytes + kAlignment;
};

// Where tiles are in the ring. A tile is full when every thread that copies has arrived, and free
// again when every warp that computes has.
struct Ring {
  uint64_t full[kStages];
  uint64_t free[kStages];
};

// Copies all tiles; warp w of the warpgroup takes the cache block w of each. Zeros from `length`
// on, where a slot may hold NaN.
template <int kHeadDim>
__device__ __forceinline__ void CopyTiles(const PagedKv& kv, int head, const int32_t* table,
                                          int length, int tiles, uint8_t* stages, Ring& ring) {
  using S = Shape<kHeadDim>;
  constexpr int kVectors = kPagedKvTokens * S::kChunks;  // K or V of a cache block
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int64_t value_offset = static_cast<int64_t>(kv.heads) * kVectors * 16;
  const uint8_t* cache =
      static_cast<const uint8_t*>(kv.base) + (static_cast<int64_t>(head) * kVectors + lane) * 16;
  const auto block_of = [&](int tile) {
    const int block = tile * (kTilePositions / kPagedKvTokens) + warp;
    return block * kPagedKvTokens < length ? __ldg(table + block) : 0;
  };
  int64_t block = block_of(0);
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    if (tile >= kStages) ptx::BarrierWait(&ring.free[stage], (tile / kStages - 1) % 2);
    const uint8_t* k = cache + block * 2 * value_offset;
    const uint32_t to = ptx::SharedAddress(stages + stage * 2 * S::kTileBytes);
    const int exist = length - tile * kTilePositions - warp * kPagedKvTokens;  // rows, if below 16
#pragma unroll
    for (int j = 0; j < kVectors / 32; ++j) {
      const int row = (lane + j * 32) / S::kChunks, chunk = (lane + j * 32) % S::kChunks;
      const uint32_t at = to + ptx::HeadTile<kHeadDim>::Offset(warp * kPagedKvTokens + row, chunk);
      ptx::CopyOrZero(at, k + j * 512, row < exist);
      ptx::CopyOrZero(at + S::kTileBytes, k + value_offset + j * 512, row < exist);
    }
    ptx::CommitCopies();
    if (tile + 1 < tiles) block = block_of(tile + 1);
    if (tile > 0) {
      ptx::WaitForCopies<1>();
      ptx::Arrive(&ring.full[(tile - 1) % kStages]);
    }
  }
  ptx::WaitForCopies<0>();
  ptx::Arrive(&ring.full[(tiles - 1) % kStages]);
}

// Hides the scores of positions behind a row's own. `first` is the tile's first position plus this
// thread's first column, `position` that of its first row.
__device__ __forceinline__ void Mask(int first, int position, float (&s)[32]) {
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    if (first + j / 4 * 8 + j % 2 > position + j / 2 % 2 * 8) s[j] = -INFINITY;
  }
}

// Copies the rows of a warpgroup, zeros from `rows` on, and returns when all of them are there.
template <int kHeadDim>
__device__ __forceinline__ void LoadQueries(const uint4* q, int64_t row_vectors, int rows,
                                            int group, uint8_t* shared) {
  using S = Shape<kHeadDim>;
#pragma unroll
  for (int i = threadIdx.x % 128; i < kGroupRows * S::kChunks; i += 128) {
    const int row = i / S::kChunks, chunk = i % S::kChunks;
    ptx::CopyOrZero(ptx::SharedAddress(shared + ptx::HeadTile<kHeadDim>::Offset(row, chunk)),
                    row < rows ? q + row * row_vectors + chunk : q, row < rows);
  }
  ptx::CommitCopies();
  ptx::WaitForCopies<0>();
  ptx::NamedBarrier(group + 1, 128);
}

// The rows of a warpgroup: the first `rows` of 64 from position `first` on.
template <int kHeadDim>
__device__ __forceinline__ void Attend(const uint8_t* q, int first, int rows, float scale,
                                       const uint8_t* stages, Ring& ring, float (&o)[kHeadDim / 2],
                                       SoftmaxState& state) {
  using S = Shape<kHeadDim>;
  const int lane = threadIdx.x % 32;
  const int position = first + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const int tiles = (first + rows + kTilePositions - 1) / kTilePositions;
  const int unmasked = min((first + 1) / kTilePositions, tiles);
  const auto wait = [&](int tile) {
    ptx::BarrierWait(&ring.full[tile % kStages], tile / kStages % 2);
    return stages + tile % kStages * 2 * S::kTileBytes;
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
    ptx::TileValues<kHeadDim>(weights, before + S::kTileBytes, o);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    if constexpr (decltype(masked)::value) {
      Mask(tile * kTilePositions + lane % 4 * 2, position, s);
    }
    Softmax(s, scale, state, factor);
    ptx::WgmmaWait<0>();
    if (lane == 0) ptx::Arrive(&ring.free[(tile - 1) % kStages]);
#pragma unroll
    for (int j = 0; j < kHeadDim / 2; ++j) o[j] *= factor[j / 2 % 2];
    PackWeights(s, weights);
  };
  int tile = 1;
  for (; tile < unmasked; ++tile) add_tile(tile, std::false_type());
  for (; tile < tiles; ++tile) add_tile(tile, std::true_type());
  ptx::WgmmaFence();
  ptx::TileValues<kHeadDim>(weights, stage + S::kTileBytes, o);
  ptx::WgmmaCommit();
  ptx::WgmmaWait<0>();
}

// `out`: of the first row of the warpgroup.
template <int kHeadDim>
__device__ __forceinline__ void StoreRows(const float (&o)[kHeadDim / 2], const SoftmaxState& state,
                                          int rows, int64_t row_words, uint32_t* out) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = state.sum[i];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = threadIdx.x % 128 / 32 * 16 + lane / 4 + 8 * i;
    if (row >= rows) continue;
    const float factor = 1.0f / sum;
    uint32_t* to = out + row * row_words + lane % 4;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      to[j * 4] = PackBFloat16(o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor);
    }
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillKernel(const __grid_constant__ PrefillAttentionParams p, float scale) {
  using S = Shape<kHeadDim>;
  extern __shared__ uint8_t unaligned[];
  uint8_t* shared = unaligned + (-ptx::SharedAddress(unaligned)) % kAlignment;
  __shared__ Ring ring;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int4 fields = __ldg(reinterpret_cast<const int4*>(p.segments + blockIdx.z));
  const PrefillSegment segment = {fields.x, fields.y, fields.z, fields.w};
  const int head = blockIdx.x, heads = gridDim.x;
  const int first = (gridDim.y - 1 - blockIdx.y) * kRows;  // the longest rows start first
  if (first >= segment.num_tokens) return;
  const int rows = min(segment.num_tokens - first, kRows);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::BarrierInit(&ring.full[i], 128);
      ptx::BarrierInit(&ring.free[i], (rows + kGroupRows - 1) / kGroupRows * 4);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  const int group = threadIdx.x / 128;
  uint8_t* stages = shared + kGroups * S::kTileBytes;
  const int position = segment.context_tokens + first;
  if (group == kGroups) {
    ptx::GiveRegisters<kCopyRegisters>();
    const int32_t* table = p.kv.block_tables + segment.sequence * p.kv.table_stride;
    const int tiles = (position + rows + kTilePositions - 1) / kTilePositions;
    CopyTiles<kHeadDim>(p.kv, head, table, segment.context_tokens + segment.num_tokens, tiles,
                        stages, ring);
  } else {
    ptx::TakeRegisters<kComputeRegisters>();
    const int group_rows = min(rows - group * kGroupRows, kGroupRows);
    if (group_rows > 0) {
      const int64_t row = segment.first_token + first + group * kGroupRows;
      uint8_t* q = shared + group * S::kTileBytes;
      LoadQueries<kHeadDim>(
          static_cast<const uint4*>(p.qkv) + (row * 3 * heads + head) * S::kChunks,
          int64_t{3} * heads * S::kChunks, group_rows, group, q);
      float o[kHeadDim / 2] = {};
      SoftmaxState state;
      Attend<kHeadDim>(q, position + group * kGroupRows, group_rows, scale, stages, ring, o, state);
      StoreRows<kHeadDim>(o, state, group_rows, int64_t{heads} * (kHeadDim / 2),
                          static_cast<uint32_t*>(p.out) + (row * heads + head) * (kHeadDim / 2));
    }
  }
}

template <int kHeadDim>
cudaError_t Launch(const PrefillAttentionParams& p, cudaStream_t stream) {
  const float scale = 1.44269504f / sqrtf(kHeadDim);  // exp(x) = 2^(x log2 e)
  return LaunchDependent(
      PrefillKernel<kHeadDim>,
      {.grid = dim3(p.kv.heads, (p.max_tokens + kRows - 1) / kRows, p.num_segments),
       .block = dim3(kThreads),
       .shared_bytes = Shape<kHeadDim>::kSharedBytes},
      stream, p, scale);
}

}  // namespace

cudaError_t LaunchPrefillAttention(const PrefillAttentionParams& params, cudaStream_t stream) {
  switch (params.kv.head_dim) {
    case 64:
      return Launch<64>(params, stream);
    case 80:
      return Launch<80>(params, stream);
    case 128:
      return Launch<128>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
