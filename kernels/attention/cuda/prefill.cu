// Prefill attention, bf16: a block takes 128 rows of a head of a segment, 64 for each of its two
// warpgroups, and walks the cache in tiles of 64 positions with borders at multiples of 64, two
// tiles in shared memory. So a row sees the same tiles in the same order wherever its chunk begins;
// a tile that lies beyond a row is multiplied by zero weights and changes no bit of it.
//
// Shared memory, tiles as in prefill_wgmma.cuh: Q of each warpgroup, then stages of {K, V}.
#include <cmath>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"

namespace hanlin {
namespace {

using ptx::kTilePositions;
using ptx::kTileStride;

constexpr int kGroups = 2;  // warpgroups
constexpr int kGroupRows = 64;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kThreads = kGroups * 128;
constexpr int kStages = 2;

template <int kHeadDim>
struct Shape {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kTileBytes = kChunks * kTileStride;
  // Of a multiprocessor: one block's softmax runs beside another's products, registers permitting.
  static constexpr int kMinBlocks = kHeadDim <= 80 ? 2 : 1;
  static constexpr int kSharedBytes = (kGroups + 2 * kStages) * kTileBytes;
};

__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Copies 16 bytes, or fills them with zeros.
__device__ __forceinline__ void CopyOrZero(void* shared, const void* global, bool copies) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx::SharedAddress(shared)),
               "l"(global), "r"(copies ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for this thread's copies and shows them to the tensor cores.
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_all;\nfence.proxy.async.shared::cta;" ::: "memory");
}

// The head of a sequence in the cache.
struct HeadCache {
  const uint8_t* base;  // of the head in block 0
  int64_t block_bytes;
  int64_t value_offset;  // from K to V
  const int32_t* table;
};

// K and V of the positions of a tile; zeros from `length` on, where a slot may hold NaN.
template <int kHeadDim>
__device__ __forceinline__ void LoadTile(const HeadCache& cache, int tile, int length,
                                         uint8_t* shared) {
  using S = Shape<kHeadDim>;
#pragma unroll
  for (int i = threadIdx.x; i < kTilePositions * S::kChunks; i += kThreads) {
    const int row = i / S::kChunks, chunk = i % S::kChunks;
    const int position = tile * kTilePositions + row;
    const bool exists = position < length;
    const int64_t block = exists ? __ldg(cache.table + position / kPagedKvTokens) : 0;
    const uint8_t* k = cache.base + block * cache.block_bytes +
                       (position % kPagedKvTokens * S::kChunks + chunk) * 16;
    uint8_t* to = shared + chunk * kTileStride + row * 16;
    CopyOrZero(to, k, exists);
    CopyOrZero(to + S::kTileBytes, k + cache.value_offset, exists);
  }
}

// The softmax of two rows so far, in each of the 4 lanes that share them; `sum` is of this lane.
struct State {
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
};

// Turns scores into weights and moves sum and o to the new maximum.
template <int kValues>
__device__ __forceinline__ void Softmax(float (&s)[32], float scale, State& state,
                                        float (&o)[kValues]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float maximum = state.maximum[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      maximum = fmaxf(maximum, fmaxf(s[4 * j + 2 * i], s[4 * j + 2 * i + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
    const float factor = Exp2((state.maximum[i] - maximum) * scale);
    const float offset = maximum * scale;
    state.maximum[i] = maximum;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& value = s[4 * j + 2 * i + c];
        value = Exp2(fmaf(value, scale, -offset));
        sum += value;
      }
    }
    state.sum[i] = state.sum[i] * factor + sum;
#pragma unroll
    for (int j = 0; j < kValues / 4; ++j) {
      o[4 * j + 2 * i] *= factor;
      o[4 * j + 2 * i + 1] *= factor;
    }
  }
}

template <int kHeadDim>
__global__ __launch_bounds__(kThreads, Shape<kHeadDim>::kMinBlocks) void PrefillKernel(
    const __grid_constant__ PrefillAttentionParams p, float scale) {
  using S = Shape<kHeadDim>;
  extern __shared__ __align__(128) uint8_t shared[];
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int4 fields = __ldg(reinterpret_cast<const int4*>(p.segments + blockIdx.z));
  const PrefillSegment segment = {fields.x, fields.y, fields.z, fields.w};
  const int head = blockIdx.x, heads = gridDim.x;
  const int first = (gridDim.y - 1 - blockIdx.y) * kRows;  // the longest rows start first
  if (first >= segment.num_tokens) return;
  const int length = segment.context_tokens + segment.num_tokens;
  const int group = threadIdx.x / 128;
  uint8_t* stages = shared + kGroups * S::kTileBytes;

  const HeadCache cache = {
      static_cast<const uint8_t*>(p.kv.base) + static_cast<int64_t>(head) * kHeadDim * 32,
      int64_t{64} * heads * kHeadDim, int64_t{32} * heads * kHeadDim,
      p.kv.block_tables + segment.sequence * p.kv.table_stride};
  const auto* q =
      static_cast<const uint4*>(p.qkv) +
      (static_cast<int64_t>(segment.first_token + first) * 3 * heads + head) * S::kChunks;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * S::kChunks; i += kThreads) {
    const int row = i / S::kChunks, chunk = i % S::kChunks;
    const bool exists = first + row < segment.num_tokens;
    uint8_t* to =
        shared + row / kGroupRows * S::kTileBytes + chunk * kTileStride + row % kGroupRows * 16;
    CopyOrZero(to, exists ? q + static_cast<int64_t>(row) * 3 * heads * S::kChunks + chunk : q,
               exists);
  }
  LoadTile<kHeadDim>(cache, 0, length, stages);
  CommitCopies();

  // Positions of this thread's rows: the first, and 8 further.
  const int lane = threadIdx.x % 32;
  const int local_row = threadIdx.x / 32 * 16 + lane / 4;
  const int position = segment.context_tokens + first + local_row;
  const int group_first = segment.context_tokens + first + group * kGroupRows;
  const int last = min(group_first + kGroupRows, length) - 1;  // position of the group's last row
  const int tiles =
      (min(segment.context_tokens + first + kRows, length) + kTilePositions - 1) / kTilePositions;
  const uint64_t q_tile = ptx::TileAlongHead(shared + group * S::kTileBytes);
  float o[kHeadDim / 2] = {};
  State state;
  for (int tile = 0; tile < tiles; ++tile) {
    WaitForCopies();
    __syncthreads();  // the tile is there for all, and nobody reads the other stage any more
    uint8_t* stage = stages + tile % kStages * 2 * S::kTileBytes;
    if (tile + 1 < tiles) {
      LoadTile<kHeadDim>(cache, tile + 1, length,
                         stages + (tile + 1) % kStages * 2 * S::kTileBytes);
      CommitCopies();
    }
    if (tile * kTilePositions > last) continue;  // nothing for this warpgroup
    float s[32];
    const uint64_t k_tile = ptx::TileAlongHead(stage);
    ptx::WgmmaFence();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const int offset = step * (2 * kTileStride / 16);
      ptx::ScoreProduct(s, q_tile + offset, k_tile + offset, step > 0);
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    if ((tile + 1) * kTilePositions > group_first + 1) {
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        const int column = tile * kTilePositions + j / 4 * 8 + lane % 4 * 2 + j % 2;
        if (column > position + j / 2 % 2 * 8) s[j] = -INFINITY;
      }
    }
    Softmax(s, scale, state, o);
    uint32_t weights[4][4];
#pragma unroll
    for (int i = 0; i < 16; ++i) weights[i / 4][i % 4] = PackBFloat16(s[2 * i], s[2 * i + 1]);
    const uint64_t v_tile = ptx::TileAlongPositions(stage + S::kTileBytes);
    ptx::WgmmaFence();
#pragma unroll
    for (int step = 0; step < kTilePositions / 16; ++step) {
      ptx::ValueProduct(o, weights[step], v_tile + step * 16);
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = state.sum[i];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = first + local_row + 8 * i;
    if (row >= segment.num_tokens) continue;
    const float factor = 1.0f / sum;
    auto* out = static_cast<uint32_t*>(p.out) +
                (static_cast<int64_t>(segment.first_token + row) * heads + head) * (kHeadDim / 2) +
                lane % 4;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      out[j * 4] = PackBFloat16(o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor);
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
