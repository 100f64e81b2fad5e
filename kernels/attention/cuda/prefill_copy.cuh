// The fourth warpgroup of prefill attention: two of its warps copy queries and tiles of keys and
// values into shared memory, the other two store new keys and values in the cache on the way.
// Positions of the context come from the cache, the segment's own from qkv.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_COPY_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_COPY_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/base/cuda/ptx.cuh"

namespace hanlin {

// A block of rows of a head of a segment. Rows are counted in the segment.
struct alignas(16) PrefillItem {
  PrefillSegment segment;
  int head;
  int first, end;  // rows; `first` may be negative
  int tiles;       // that the last row sees; 0: there are no more items

  // Tiles of the positions before the row.
  __device__ int TilesUpTo(int row) const {
    return (segment.context_tokens + row + ptx::kTilePositions - 1) / ptx::kTilePositions;
  }
  // The first of its warpgroups that has rows.
  __device__ int FirstGroup() const { return max(-first, 0) / 64; }
};

// The items of kRows rows that a thread block serves, one after the other: of every segment its
// last rows, which see most, then those before them; heads next to each other. The direction
// changes from round to round, which evens out what thread blocks have to do. Where the items cover
// more than the segment, what is missing goes to the cheap end: the first one begins before it.
template <int kRows>
class PrefillItems {
 public:
  __device__ explicit PrefillItems(const PrefillAttentionParams& p)
      : p_(p),
        at_(PlaceOf(blockIdx.x)),
        step_(PlaceOf(2 * (gridDim.x - blockIdx.x) - 1)),
        step_after_(PlaceOf(2 * blockIdx.x + 1)) {}

  // Moves on to the next item, to begin with to the first; its `tiles` are 0 behind the last.
  __device__ void Next() {
    item.tiles = 0;
    while (at_.order < Blocks(p_.max_tokens) && item.tiles == 0) {
      const int4 s = __ldg(reinterpret_cast<const int4*>(p_.segments + at_.segment));
      item.segment = {ptx::Uniform(s.x), ptx::Uniform(s.y), ptx::Uniform(s.z), ptx::Uniform(s.w)};
      if (at_.order < Blocks(item.segment.num_tokens)) {
        item.head = at_.head;
        item.first = (item.segment.num_tokens + 63) / 64 * 64 - (at_.order + 1) * kRows;
        item.end = min(item.first + kRows, item.segment.num_tokens);
        item.tiles = item.TilesUpTo(item.end);
      }
      Advance();
    }
  }

  PrefillItem item;

 private:
  // Digits of an item's number, the last one first. Division takes long, so that places are added.
  struct Place {
    int head, segment;
    int order;  // from the segment's end
  };

  static __device__ int Blocks(int tokens) { return (tokens + kRows - 1) / kRows; }
  __device__ Place PlaceOf(int number) const {
    const int rest = number / p_.kv.heads;
    return {number % p_.kv.heads, rest % p_.num_segments, rest / p_.num_segments};
  }
  __device__ void Advance() {
    at_.head += step_.head;
    at_.segment += step_.segment;
    at_.order += step_.order;
    if (at_.head >= p_.kv.heads) {
      at_.head -= p_.kv.heads;
      ++at_.segment;
    }
    if (at_.segment >= p_.num_segments) {
      at_.segment -= p_.num_segments;
      ++at_.order;
    }
    const Place step = step_;
    step_ = step_after_;
    step_after_ = step;
  }

  const PrefillAttentionParams& p_;
  Place at_, step_, step_after_;
};

// The ring of a thread block's pairs of tiles, which a thread of each of two warps fills and,
// beside those who compute, two warps read. With the first pair of an item comes the item.
template <typename Space, typename G>
struct PrefillRing : TileRing<Space, G, 2, 2> {
  PrefillItem items[Space::kStages];

  // The item whose first pair is number `index`.
  __device__ __forceinline__ PrefillItem WaitItem(int index) {
    this->WaitFull(index);
    return items[index % Space::kStages];
  }
};

// What one of the copying warps brings in for one block of rows, number `round` of the thread
// block, whose pairs begin at `base`: K and the queries (part 0), or V (part 1).
template <int kHeadDim, typename G, typename Space, typename Ring>
struct TileCopier {
  using Tile = ptx::HeadTile<kHeadDim>;
  static constexpr int kTileBytes = Space::kTileBytes, kVectors = kHeadDim / 8;
  const PrefillAttentionParams& p;
  const PrefillMaps& maps;
  const Space& space;
  Ring& ring;
  const PrefillItem& item;
  const int part, round, base;
  const uint64_t policy;

  // A position of the head in memory.
  __device__ __forceinline__ const uint4* Find(int position) const {
    const PrefillSegment& segment = item.segment;
    if (position >= segment.context_tokens) {
      const int64_t row = segment.first_token + position - segment.context_tokens;
      return static_cast<const uint4*>(p.qkv) +
             ((row * 3 + 1 + part) * p.kv.heads + item.head) * kVectors;
    }
    const int64_t block =
        __ldg(p.kv.block_tables + segment.sequence * p.kv.table_stride + position / kPagedKvTokens);
    const int64_t slot =
        ((block * 2 + part) * p.kv.heads + item.head) * kPagedKvTokens + position % kPagedKvTokens;
    return static_cast<const uint4*>(p.kv.base) + slot * kVectors;
  }

  // Copies a tile position by position, and shows it to the tensor cores. Behind the segment V is
  // zeros, as the weights are; scores there are hidden whatever K is.
  __device__ __forceinline__ void CopyMixed(int first, uint8_t* to) const {
    const int exist =
        min(item.segment.context_tokens + item.segment.num_tokens - first, ptx::kTilePositions);
    int i = threadIdx.x % 32;
#pragma unroll 2
    for (; i < exist * kVectors; i += 32) {
      const int row = i / kVectors, chunk = i % kVectors;
      ptx::CopyOrZero(ptx::SharedAddress(to + Tile::Offset(row, chunk)), Find(first + row) + chunk,
                      true);
    }
    ptx::CommitCopies();
    if (part == 1) {
#pragma unroll 1
      for (; i < ptx::kTilePositions * kVectors; i += 32) {
        *reinterpret_cast<uint4*>(to + Tile::Offset(i / kVectors, i % kVectors)) =
            make_uint4(0, 0, 0, 0);
      }
    }
    ptx::WaitForCopies<0>();
    __syncwarp();
  }

  // Boxes of the head, into a tile from its row `to_row` on.
  __device__ __forceinline__ void CopyBoxes(const CUtensorMap& wide, const CUtensorMap& rest,
                                            int column, int row, int to_row, uint8_t* to,
                                            uint64_t* barrier) const {
#pragma unroll
    for (int panel = 0; panel < Tile::kPanels; ++panel) {
      ptx::TensorCopy(to + panel * ptx::kPanelBytes + to_row * 128, &wide, column + panel * 64, row,
                      barrier, policy);
    }
    if constexpr (Tile::kHasTail) {
      ptx::TensorCopy(to + Tile::kPanels * ptx::kPanelBytes + to_row * 32, &rest,
                      column + Tile::kPanels * 64, row, barrier, policy);
    }
  }
  // 64 rows of q (0), k (1) or v (2), from row `row` of the segment on.
  __device__ __forceinline__ void CopyRows(int which, int row, uint8_t* to,
                                           uint64_t* barrier) const {
    CopyBoxes(maps.qkv, maps.qkv_rest, (which * p.kv.heads + item.head) * kHeadDim,
              item.segment.first_token + row, 0, to, barrier);
  }
  __device__ __forceinline__ void CopyCached(int first, uint8_t* to, uint64_t* barrier) const {
    const int32_t* const table =
        p.kv.block_tables + item.segment.sequence * p.kv.table_stride + first / kPagedKvTokens;
    constexpr int kBlocks = ptx::kTilePositions / kPagedKvTokens;
    int blocks[kBlocks];  // on their way together
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) blocks[i] = __ldg(table + i);
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      const int row = ((blocks[i] * 2 + part) * p.kv.heads + item.head) * kPagedKvTokens;
      CopyBoxes(maps.cache, maps.cache_rest, 0, row, i * kPagedKvTokens, to, barrier);
    }
  }
  // By one thread: what comes in boxes; with the first tile the queries.
  __device__ __forceinline__ void CopyByBoxes(int tile, bool is_new, bool mixed,
                                              uint8_t* to) const {
    const int first = tile * ptx::kTilePositions;
    uint64_t* const full = ring.Full(base + tile);
    const bool begins = part == 0 && tile == 0;
    const int first_group = begins ? item.FirstGroup() : G::kCount;
    if (begins) ring.items[base % Space::kStages] = item;
    ptx::ArriveExpect(full, (G::kCount - first_group + (mixed ? 0 : 1)) * kTileBytes);
    if (is_new) {
      CopyRows(1 + part, first - item.segment.context_tokens, to, full);
    } else if (!mixed) {
      CopyCached(first, to, full);
    }
    for (int g = first_group; g < G::kCount; ++g) {
      CopyRows(0, item.first + g * 64, space.Own(round, g), full);
    }
  }
  __device__ __forceinline__ void Run() const {
    const int context = item.segment.context_tokens, length = context + item.segment.num_tokens;
    ring.WaitOwnFree(round);
    for (int tile = 0; tile < item.tiles; ++tile) {
      const int first = tile * ptx::kTilePositions, end = first + ptx::kTilePositions;
      const bool is_new = first >= context && end <= length;
      const bool mixed = !is_new && end > context;
      uint8_t* const to = space.Pair(base + tile) + part * kTileBytes;
      ring.WaitFree(base + tile);
      if (mixed) CopyMixed(first, to);
      if (threadIdx.x % 32 == 0) CopyByBoxes(tile, is_new, mixed, to);
      __syncwarp();
    }
  }
};

// Run by the first two warps.
template <int kHeadDim, typename G, typename Space, typename Ring>
__device__ __forceinline__ void CopyPrefillTiles(const PrefillAttentionParams& p,
                                                 const PrefillMaps& maps, const Space& space,
                                                 Ring& ring) {
  const uint64_t policy = ptx::EvictNormalPolicy();
  const int part = ptx::Uniform(threadIdx.x / 32 % 2);
  PrefillItems<G::kRows> items(p);
  int base = 0;
  for (int round = 0;; ++round) {
    items.Next();
    if (items.item.tiles == 0) break;
    TileCopier<kHeadDim, G, Space, Ring>{p,    maps,  space, ring,  items.item,
                                         part, round, base,  policy}
        .Run();
    base += items.item.tiles;
  }
  ring.WaitFree(base);
  if (threadIdx.x % 32 != 0) return;
  if (part == 0) ring.items[base % Space::kStages].tiles = 0;
  ring.Fill(base);
}

// Stores the positions from `begin` to `end` of 16 of a tile into their block of the cache, where
// the vectors of a head follow each other from `to` on. By a warp.
template <int kHeadDim>
__device__ __forceinline__ void StoreBlock(const uint8_t* tile, int block_of_tile, int begin,
                                           int end, uint4* to) {
  using Tile = ptx::HeadTile<kHeadDim>;
  constexpr int kVectors = kHeadDim / 8, kEach = kPagedKvTokens * kVectors / 32;
  const int lane = threadIdx.x % 32;
  uint4 values[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int row = (lane + 32 * j) / kVectors, chunk = (lane + 32 * j) % kVectors;
    values[j] = *reinterpret_cast<const uint4*>(
        tile + Tile::Offset(block_of_tile * kPagedKvTokens + row, chunk));
  }
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int row = (lane + 32 * j) / kVectors;
    if (row >= begin && row < end) to[lane + 32 * j] = values[j];
  }
}

// Run by the other two warps, a block each in turn: every row's K and V are stored by the block of
// rows that it belongs to.
template <int kHeadDim, typename G, typename Space, typename Ring>
__device__ __forceinline__ void StoreNewKeys(const PrefillAttentionParams& p, const Space& space,
                                             Ring& ring) {
  constexpr int kBlockVectors = kPagedKvTokens * kHeadDim / 8;
  const int warp = ptx::Uniform(threadIdx.x / 32 % 2);
  for (int index = 0;;) {
    const PrefillItem item = ring.WaitItem(index);
    if (item.tiles == 0) return;
    const int begin = item.segment.context_tokens + max(item.first, 0);
    const int end = item.segment.context_tokens + item.end;
    const int32_t* const table = p.kv.block_tables + item.segment.sequence * p.kv.table_stride;
    for (int tile = 0; tile < item.tiles; ++tile, ++index) {
      const int first = tile * ptx::kTilePositions;
      ring.WaitFull(index);
#pragma unroll 1
      for (int i = warp; i < ptx::kTilePositions / kPagedKvTokens; i += 2) {
        const int low = begin - first - i * kPagedKvTokens, high = end - first - i * kPagedKvTokens;
        if (low >= kPagedKvTokens || high <= 0) continue;
        const int64_t block = __ldg(table + first / kPagedKvTokens + i);
#pragma unroll 1
        for (int part = 0; part < 2; ++part) {
          StoreBlock<kHeadDim>(space.Pair(index) + part * Space::kTileBytes, i, low, high,
                               static_cast<uint4*>(p.kv.base) +
                                   ((block * 2 + part) * p.kv.heads + item.head) * kBlockVectors);
        }
      }
      __syncwarp();
      ring.Free(index);
    }
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_PREFILL_COPY_CUH_
