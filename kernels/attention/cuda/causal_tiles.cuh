// What the tensor-core kernels of causal attention for training share. The work comes in blocks of
// rows of a head of a sequence (queries, or keys); each warpgroup of a thread block keeps 64 of the
// rows and meets the tiles of the other side, 64 aligned positions each, in a ring that one more
// warpgroup fills. A thread block serves many blocks of rows, one behind the other, and the tiles
// of the next are on their way while this one's results are stored. Tiles lie in shared memory as
// in prefill_wgmma.cuh, products as in wgmma.cuh: lane t of warp w holds, in s[4 j + 2 i + c], row
// 16 w + t / 4 + 8 i and column 8 j + t % 4 * 2 + c.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/attention/cuda/causal_schedule.h"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"

namespace hanlin {

inline constexpr int kTileAlignment = 1024;
inline constexpr int kMaxSharedBytes = 232448;  // of a thread block on Hopper

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
  static_assert(kCopyRegisters >= 32 && kCopyRegisters % 8 == 0 && kRegisters % 8 == 0);
};

inline cudaError_t CountMultiprocessors(int* count) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess
             ? error
             : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

// One thread block a multiprocessor, where there are items for so many.
inline cudaError_t BlocksFor(int64_t items, int* thread_blocks) {
  int multiprocessors = 0;
  const cudaError_t error = CountMultiprocessors(&multiprocessors);
  *thread_blocks = items < multiprocessors ? static_cast<int>(items) : multiprocessors;
  return error;
}

inline cudaError_t PlanWork(const CudaCausalAttentionParams& p, int rows, bool of_queries,
                            CausalWork* work, int* thread_blocks) {
  int multiprocessors = 0;
  const cudaError_t error = CountMultiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  *work = CausalWork::Make(static_cast<int>(p.length), rows, of_queries, static_cast<int>(p.heads),
                           static_cast<int>(p.sequences), multiprocessors);
  return BlocksFor(work->count(), thread_blocks);
}

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
#pragma unroll 2  // the copying threads have few registers
  for (int pass = 0; pass < 64; pass += kPassRows) {
    const int position = first + row + pass;
    ptx::CopyOrZero(to + pass * row_bytes,
                    rows.first + min(position, length - 1) * rows.stride + chunk,
                    position < length);
  }
}

// Two tiles of the same rows, one behind the other.
template <int kHeadDim>
__device__ __forceinline__ void CopyOwnTiles(const HeadRows& x, const HeadRows& y, int first,
                                             int length, uint8_t* tiles) {
  CopyTile<kHeadDim>(x, first, length, tiles);
  CopyTile<kHeadDim>(y, first, length, tiles + ptx::HeadTile<kHeadDim>::kBytes);
}

// Shared memory of a kernel whose warpgroups keep kOwnTiles each: those, twice where there is room,
// then the ring of pairs.
template <int kHeadDim, typename G, int kOwnTiles, int kRingStages = 4>
struct TileSpace {
  static constexpr int kTileBytes = ptx::HeadTile<kHeadDim>::kBytes;
  static constexpr int kStages = kRingStages;
  static constexpr int kOwn = G::kCount * kOwnTiles;
  static constexpr int Bytes(int buffers) {
    return (buffers * kOwn + 2 * kStages) * kTileBytes + kTileAlignment;
  }
  static constexpr int kBuffers = Bytes(2) + 1024 <= kMaxSharedBytes ? 2 : 1;
  static constexpr int kBytes = Bytes(kBuffers);

  uint8_t* tiles;
  __device__ explicit TileSpace(uint8_t* unaligned)
      : tiles(unaligned + (-ptx::SharedAddress(unaligned)) % kTileAlignment) {}
  // The tiles that a warpgroup keeps of the block of rows number `round` of this thread block.
  __device__ __forceinline__ uint8_t* Own(int round, int group) const {
    return tiles + (round % kBuffers * G::kCount + group) * kOwnTiles * kTileBytes;
  }
  // The pair number `index` of this thread block.
  __device__ __forceinline__ uint8_t* Pair(int index) const {
    return tiles + (kBuffers * kOwn + index % kStages * 2) * kTileBytes;
  }
};

// Who may touch what of a TileSpace. A pair, and with the first pair of a block of rows the tiles
// that the warpgroups keep, is full when every thread that copies has arrived, and free again when
// every warp that computes has, and every other one that reads it; a warp may free only what it has
// waited for.
template <typename Space, typename G, int kCopying = 128, int kOtherReaders = 0>
struct TileRing {
  static constexpr int kStages = Space::kStages, kBuffers = Space::kBuffers;
  uint64_t full[kStages], free[kStages];
  uint64_t own_free[kBuffers];

  // By one thread, before the block's barrier.
  __device__ void Init() {
    for (int i = 0; i < kStages; ++i) {
      ptx::BarrierInit(&full[i], kCopying);
      ptx::BarrierInit(&free[i], G::kCount * 4 + kOtherReaders);
    }
    for (int i = 0; i < kBuffers; ++i) ptx::BarrierInit(&own_free[i], G::kCount * 4);
    ptx::FenceBarrierInit();
  }

  __device__ __forceinline__ void WaitFull(int index) {
    ptx::BarrierWait(&full[index % kStages], index / kStages % 2);
  }
  // A lane arrives for its warp: the others' reads are ordered before that by the warp's barrier.
  __device__ __forceinline__ void Free(int index) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::Arrive(&free[index % kStages]);
  }
  __device__ __forceinline__ void FreeOwn(int round) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::Arrive(&own_free[round % kBuffers]);
  }
  // Lets the pairs from `index` up to `end` pass.
  __device__ __forceinline__ void Skip(int index, int end) {
    for (; index < end; ++index) {
      WaitFull(index);
      Free(index);
    }
  }

  // The copying threads' side.
  __device__ __forceinline__ void WaitOwnFree(int round) {
    if (round >= kBuffers) {
      ptx::BarrierWait(&own_free[round % kBuffers], (round / kBuffers - 1) % 2);
    }
  }
  __device__ __forceinline__ void WaitFree(int index) {
    if (index >= kStages) ptx::BarrierWait(&free[index % kStages], (index / kStages - 1) % 2);
  }
  __device__ __forceinline__ uint64_t* Full(int index) { return &full[index % kStages]; }
  __device__ __forceinline__ void Fill(int index) { ptx::Arrive(Full(index)); }
};

// Copies the `count` pairs of a block of rows, from tile `first_tile` on, as the thread block's
// pairs from `index` on; what was copied before goes with the first. also(tile, index) may copy
// more. By the copying warpgroup.
template <int kHeadDim, typename Space, typename Ring, typename Also>
__device__ __forceinline__ void CopyPairs(const HeadRows& x, const HeadRows& y, int first_tile,
                                          int count, int length, const Space& space, Ring& ring,
                                          int index, Also also) {
  for (int i = 0; i < count; ++i, ++index) {
    const int tile = first_tile + i;
    ring.WaitFree(index);
    uint8_t* const to = space.Pair(index);
    CopyTile<kHeadDim>(x, tile * 64, length, to);
    CopyTile<kHeadDim>(y, tile * 64, length, to + Space::kTileBytes);
    also(tile, index);
    ptx::CommitCopies();
    if (i > 0) {
      ptx::WaitForCopies<1>();
      ring.Fill(index - 1);
    }
  }
  ptx::WaitForCopies<0>();
  ring.Fill(index - 1);
}

// What a block of queries meets.
struct KeyTiles {
  int idle;               // warpgroups before the sequence
  const int32_t* begins;  // documents of the sequence, or null
  int first;              // tile
  int count;

  __device__ __forceinline__ KeyTiles(const CudaCausalAttentionParams& p, const Schedule& work,
                                      int groups)
      : idle(max(-work.first, 0) / 64),
        begins(p.document_begin == nullptr ? nullptr : p.document_begin + work.sequence * p.length),
        first(begins == nullptr ? 0 : __ldcg(begins + max(work.first, 0)) / 64),
        count(work.first / 64 + groups - first) {}
};

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
template <int kValues>
__device__ __forceinline__ void HideKeys(const QueryPair& queries, int key, float hidden,
                                         float (&s)[kValues]) {
  const int first = key + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < kValues; ++j) {
    const int i = j / 2 % 2, at = first + j / 4 * 8 + j % 2;
    if (at > queries.position + 8 * i || at < queries.begin[i]) s[j] = hidden;
  }
}

// Dropout's decisions for a tile whose rows are queries, about the pairs of columns that
// PackWeights puts together. `row` is of this lane's first query, `column` of the tile's first key.
__device__ __forceinline__ void DecideOnQueryRows(const DropoutLaw& law, uint32_t row,
                                                  uint32_t column, uint32_t (&decisions)[4][4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    uint32_t words[4];
    DropoutDecisions(law, row + n % 2 * 8, column + n / 2 * 8 + threadIdx.x % 4 * 2, words);
#pragma unroll
    for (int w = 0; w < 4; ++w) decisions[w][n] = words[w];
  }
}

// Clears what dropout takes among packed probabilities.
__device__ __forceinline__ void Drop(const uint32_t (&decisions)[4][4], uint32_t (&weights)[4][4]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) weights[i / 4][i % 4] &= KeptHalves(decisions[i / 4][i % 4]);
}

// Lane t of 4 has words[j], word t of column j; then word j of column t.
__device__ __forceinline__ void TransposeInFours(uint32_t (&words)[4]) {
#pragma unroll
  for (int bit = 1; bit < 4; bit *= 2) {
    const bool high = (threadIdx.x & bit) != 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if ((j & bit) != 0) continue;
      uint32_t &low_word = words[j], &high_word = words[j + bit];
      const uint32_t theirs = __shfl_xor_sync(0xffffffffu, high ? low_word : high_word, bit);
      low_word = high ? theirs : low_word;
      high_word = high ? high_word : theirs;
    }
  }
}

// This lane's part of 64 rows of a warpgroup's result, of which `rows` exist, times a factor a row.
// By whole warps, whose lanes exchange words so that they store 16 bytes. `out`: of the first row;
// a word is two values.
template <int kHeadDim>
__device__ __forceinline__ void StoreTile(const float (&o)[kHeadDim / 2], float factor0,
                                          float factor1, int rows, int64_t row_words,
                                          uint32_t* out) {
  constexpr int kColumns = kHeadDim / 8;  // of 8 values, 4 words
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
    const float factor = i == 0 ? factor0 : factor1;
    uint32_t* const to = out + row * row_words;
    const auto word = [&](int j) {
      return PackBFloat16(o[4 * j + 2 * i] * factor, o[4 * j + 2 * i + 1] * factor);
    };
#pragma unroll
    for (int j = 0; j < kColumns / 4 * 4; j += 4) {
      uint32_t words[4] = {word(j), word(j + 1), word(j + 2), word(j + 3)};
      TransposeInFours(words);
      if (row < rows) {
        *reinterpret_cast<uint4*>(to + (j + lane) * 4) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
#pragma unroll
    for (int j = kColumns / 4 * 4; j < kColumns; ++j) {
      if (row < rows) to[j * 4 + lane] = word(j);
    }
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_TILES_CUH_
