// What the tensor-core kernels of causal attention for training share. Warpgroups keep tiles of 64
// rows of a head of a sequence each (queries, or keys) and meet the tiles of the other side, 64
// aligned positions each, in a ring that one more warpgroup fills. Tiles lie in shared memory as in
// prefill_wgmma.cuh, products as in wgmma.cuh: lane t of warp w holds, in s[4 j + 2 i + c], row
// 16 w + t / 4 + 8 i and column 8 j + t % 4 * 2 + c.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"

namespace hanlin {

inline constexpr int kTileAlignment = 1024;

// Groups of 128 threads that compute, with so many registers a thread; one more copies with what
// they leave of a multiprocessor's.
template <int kGroupCount, int kRegisters>
struct Groups {
  static constexpr int kCount = kGroupCount;
  static constexpr int kRows = kCount * 64;
  static constexpr int kThreads = (kCount + 1) * 128;
  static constexpr int kComputeRegisters = kRegisters;
  static constexpr int kLaunchRegisters = 512 / (kCount + 1) / 8 * 8;  // the compiler's choice
  static constexpr int kCopyRegisters = kLaunchRegisters * (kCount + 1) - kCount * kRegisters;
  static_assert(kCopyRegisters >= 40 && kCopyRegisters % 8 == 0 && kRegisters % 8 == 0);
};

// The rows of one head of one sequence in a tensor, by position.
struct HeadRows {
  const uint4* first;
  int64_t stride;  // in vectors
};

// q (0), k (1) or v (2).
template <int kHeadDim>
__device__ __forceinline__ HeadRows QkvRows(const CudaCausalAttentionParams& p, int which,
                                            int sequence, int head) {
  constexpr int kVectors = kHeadDim / 8;
  const int64_t stride = 3 * p.heads * kVectors;
  return {static_cast<const uint4*>(p.qkv) + sequence * p.length * stride +
              (which * p.heads + head) * kVectors,
          stride};
}
template <int kHeadDim>
__device__ __forceinline__ HeadRows OutRows(const CudaCausalAttentionParams& p, const void* out,
                                            int sequence, int head) {
  constexpr int kVectors = kHeadDim / 8;
  const int64_t stride = p.heads * kVectors;
  return {static_cast<const uint4*>(out) + sequence * p.length * stride + head * kVectors, stride};
}

// Begins to copy the tile of 64 positions from `first` on, zeros from `length` on. By a warpgroup;
// 8 or 16 lanes take a row, so that what a lane copies lies at constant distances.
template <int kHeadDim>
__device__ __forceinline__ void CopyTile(const HeadRows& rows, int first, int length,
                                         uint8_t* tile) {
  using Tile = ptx::HeadTile<kHeadDim>;
  constexpr int kVectors = kHeadDim / 8, kLanes = kVectors > 8 ? 16 : 8, kPassRows = 128 / kLanes;
  const int row = threadIdx.x % 128 / kLanes, chunk = threadIdx.x % kLanes;
  if (chunk >= kVectors) return;
  const int row_bytes = chunk < Tile::kPanels * 8 ? 128 : 32;
  const uint32_t to = ptx::SharedAddress(tile + Tile::Offset(row, chunk));
  const uint4* const from = rows.first + (first + row) * rows.stride + chunk;
#pragma unroll
  for (int pass = 0; pass < 64; pass += kPassRows) {
    const bool exists = first + row + pass < length;
    ptx::CopyOrZero(to + pass * row_bytes, exists ? from + pass * rows.stride : rows.first, exists);
  }
}

// The two tiles that a warpgroup keeps, one behind the other. Returns when all of them is there.
template <int kHeadDim>
__device__ __forceinline__ void LoadOwnTiles(const HeadRows& x, const HeadRows& y, int first,
                                             int length, uint8_t* tiles) {
  CopyTile<kHeadDim>(x, first, length, tiles);
  CopyTile<kHeadDim>(y, first, length, tiles + ptx::HeadTile<kHeadDim>::kBytes);
  ptx::CommitCopies();
  ptx::WaitForCopies<0>();
  ptx::NamedBarrier(threadIdx.x / 128 + 1, 128);
}

// A pair of tiles is full when every thread that copies has arrived, and free again when every warp
// that computes has. A warpgroup may leave the last kStages pairs without saying so.
template <int kStageCount>
struct TileRing {
  static constexpr int kStages = kStageCount;
  uint64_t full[kStages];
  uint64_t free[kStages];

  // By one thread, before the block's barrier.
  __device__ void Init(int computing_warps) {
    for (int i = 0; i < kStages; ++i) {
      ptx::BarrierInit(&full[i], 128);
      ptx::BarrierInit(&free[i], computing_warps);
    }
    ptx::FenceBarrierInit();
  }
  __device__ __forceinline__ void WaitFull(int index) {
    ptx::BarrierWait(&full[index % kStages], index / kStages % 2);
  }
  __device__ __forceinline__ void Free(int index) {
    if (threadIdx.x % 32 == 0) ptx::Arrive(&free[index % kStages]);
  }
};

// Copies `count` pairs of tiles from tile `first_tile` on, all of them behind one another in the
// ring. also(tile, stage) may copy more. By the copying warpgroup.
template <int kHeadDim, typename Ring, typename Also>
__device__ __forceinline__ void FillRing(const HeadRows& x, const HeadRows& y, int first_tile,
                                         int count, int length, uint8_t* stages, Ring& ring,
                                         Also also) {
  constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  for (int index = 0; index < count; ++index) {
    const int stage = index % Ring::kStages, tile = first_tile + index;
    if (index >= Ring::kStages) {
      ptx::BarrierWait(&ring.free[stage], (index / Ring::kStages - 1) % 2);
    }
    uint8_t* const to = stages + stage * 2 * kTileBytes;
    CopyTile<kHeadDim>(x, tile * 64, length, to);
    CopyTile<kHeadDim>(y, tile * 64, length, to + kTileBytes);
    also(tile, stage);
    ptx::CommitCopies();
    if (index > 0) {
      ptx::WaitForCopies<1>();
      ptx::Arrive(&ring.full[(index - 1) % Ring::kStages]);
    }
  }
  ptx::WaitForCopies<0>();
  ptx::Arrive(&ring.full[(count - 1) % Ring::kStages]);
}

// The two queries of this lane: they see the keys from begin[i] to position + 8 i.
struct QueryPair {
  int position;
  int begin[2];
  int last_begin;  // of the warpgroup's last query: tiles from there on hide nothing at their front

  // Of the 64 queries from `first` on of a sequence; `begins` of the sequence, or null.
  __device__ __forceinline__ QueryPair(int first, int length, const int32_t* begins) {
    position = first + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    begin[0] = begin[1] = last_begin = 0;
    if (begins == nullptr) return;
    begin[0] = __ldcg(begins + min(position, length - 1));
    begin[1] = __ldcg(begins + min(position + 8, length - 1));
    last_begin = __ldcg(begins + min(first + 63, length - 1));
  }
  // Whether the tile of keys from `key` on has keys that some query does not see; `first` as above.
  __device__ __forceinline__ bool Hides(int key, int first) const {
    return key == first || key < last_begin;
  }
};

// Gives the scores of keys that a query does not see the value `hidden`; `key`: the tile's first.
__device__ __forceinline__ void HideKeys(const QueryPair& queries, int key, float hidden,
                                         float (&s)[32]) {
  const int first = key + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    const int i = j / 2 % 2, at = first + j / 4 * 8 + j % 2;
    if (at > queries.position + 8 * i || at < queries.begin[i]) s[j] = hidden;
  }
}

// Dropout's decisions for a tile whose rows are queries: bit e keeps s[e]. `row` is of this lane's
// first query, `column` of the tile's first key.
__device__ __forceinline__ uint32_t KeptOfQueryRows(const DropoutLaw& law, uint32_t row,
                                                    uint32_t column) {
  uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int j = n / 2, c = n % 2;
      uint32_t words[4];
      DropoutWords(law, row + 8 * i, column + j * 8 + threadIdx.x % 4 * 2 + c, words);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        kept |= static_cast<uint32_t>(words[w] >= law.threshold) << (4 * (2 * w + j) + 2 * i + c);
      }
    }
  }
  return kept;
}

// This lane's part of 64 rows of a warpgroup's result, of which `rows` exist, times a factor a row.
// `out`: of the first row; a word is two values.
template <int kHeadDim>
__device__ __forceinline__ void StoreTile(const float (&o)[kHeadDim / 2], float factor0,
                                          float factor1, int rows, int64_t row_words,
                                          uint32_t* out) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
    if (row >= rows) continue;
    const float factor = i == 0 ? factor0 : factor1;
    uint32_t* const to = out + row * row_words + threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      to[j * 4] = PackBFloat16(o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor);
    }
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_
