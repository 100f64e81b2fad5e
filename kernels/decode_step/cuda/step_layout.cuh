// Which rows of a layer a block owns, the order in which it reads them, and its shared memory.
//
// A unit is what a slot of the ring holds: two rows of `hidden` weights (of down, a quarter of two
// rows), or the keys and values of a cache block. Unit u of a block's walk over all layers goes to
// slot u % slots and to warp u % warps; slots are a multiple of warps, so that a slot is always the
// same warp's.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_LAYOUT_CUH_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_LAYOUT_CUH_

#include "kernels/decode_step/cuda/decode_step_params.h"

namespace hanlin::decode_step {

enum Phase { kQkv, kKv, kOut, kUp, kDown, kPhases };

template <int kHeadDimOf, int kWarpsOf, int kDepth>
struct Layout {
  static constexpr int kHeadDim = kHeadDimOf;
  static constexpr int kHidden = kDecodeStepHeads * kHeadDim;
  static constexpr int kWarps = kWarpsOf;  // that compute; one more fills the ring
  static constexpr int kConsumers = kWarps * 32;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kSlots = kWarps * kDepth;
  static_assert(kSlots <= 32, "a lane of the filling warp per slot");

  static constexpr int kHeadRows = kHeadDim / kDecodeStepSplits;  // of q, of k and of v
  static constexpr int kQkvRows = 3 * kHeadRows;
  static constexpr int kRows = kHidden / kDecodeStepBlocks;  // of out and down
  static constexpr int kUpRows = 4 * kRows;
  static constexpr int kChunks = 4;  // of a row of down
  static constexpr int kUnits[kPhases] = {kQkvRows / 2, 0, kRows / 2, kUpRows / 2,
                                          kRows / 2 * kChunks};
  static_assert(kHeadRows % 2 == 0 && kRows % 2 == 0 && kRows <= 32, "rows come in pairs");

  static constexpr int kUnitBytes = 2 * kHidden * 2;
  static constexpr int kTileBytes = kPagedKvTokens * kHeadDim * 2;  // of K or V
  static_assert(2 * kTileBytes <= kUnitBytes, "a cache block fits a slot");
  static constexpr int kMaxTiles = kDecodeStepMaxPositions / kPagedKvTokens / kDecodeStepSplits;

  struct Shared {
    uint8_t ring[kSlots][kUnitBytes];
    uint4 x[4 * kHidden / 8];  // bf16, the vector that the phase multiplies with
    union {
      float sums[kUpRows / 2][2][8];  // [unit][row][part]; no phase has more units
      struct {
        float maximum, sum;
        float o[kHeadDim];
      } attention[kWarps];
    };
    DecodeStepLayer layers[kDecodeStepMaxLayers];
    uint64_t full[kSlots], empty[kSlots];
    int32_t table[kMaxTiles];
    float2 scratch[kWarps];
  };
  static_assert(sizeof(Shared) <= 232448, "what a block may have");
};

// Rows of the block, and where they lie.
struct Place {
  int block, head, split;
};

// Tiles of the cache that a block of a head takes of `context` positions.
__device__ __forceinline__ int TilesOfSplit(int context, int split) {
  const int tiles = (context + kPagedKvTokens - 1) / kPagedKvTokens;
  return (tiles - split + kDecodeStepSplits - 1) / kDecodeStepSplits;  // of none: 0
}

// The walk of a block over its units. A lane of the filling warp steps from one unit of its slot to
// the next.
template <typename L>
struct Walk {
  int layer = 0, phase = kQkv, unit = 0;

  // `tiles` is the number of units of kKv.
  __device__ void Advance(int units, int tiles) {
    unit += units;
    while (true) {
      const int count = Count(tiles);
      if (unit < count) return;
      unit -= count;
      if (++phase == kPhases) {
        phase = kQkv;
        ++layer;
      }
    }
  }

  // The pieces of global memory that make up the unit, each of the returned number of bytes.
  __device__ uint32_t Pieces(const DecodeStepParams& p, const typename L::Shared& shared,
                             Place place, const uint8_t** first, const uint8_t** second) const {
    const DecodeStepLayer& w = shared.layers[layer];
    if (phase == kKv) {
      const auto* cache = static_cast<const uint8_t*>(p.kv.base) + layer * p.kv_layer_bytes;
      const int64_t keys = int64_t{2} * kDecodeStepHeads * shared.table[unit] + place.head;
      *first = cache + keys * L::kTileBytes;
      *second = *first + kDecodeStepHeads * L::kTileBytes;
      return L::kTileBytes;
    }
    const BFloat16* matrix = w.down;
    int row = place.block * L::kRows + unit / L::kChunks * 2;
    int64_t row_bytes = 4 * L::kUnitBytes / 2, offset = unit % L::kChunks * (L::kUnitBytes / 2);
    if (phase != kDown) {
      row_bytes = L::kUnitBytes / 2;
      offset = 0;
      if (phase == kQkv) {
        matrix = w.qkv;
        const int which = unit / (L::kHeadRows / 2);
        row = which * L::kHidden + place.head * L::kHeadDim + place.split * L::kHeadRows +
              unit % (L::kHeadRows / 2) * 2;
      } else {
        matrix = phase == kOut ? w.out : w.up;
        row = place.block * (phase == kOut ? L::kRows : L::kUpRows) + unit * 2;
      }
    }
    *first = reinterpret_cast<const uint8_t*>(matrix) + row * row_bytes + offset;
    *second = *first + row_bytes;
    return L::kUnitBytes / 2;
  }

 private:
  __device__ int Count(int tiles) const {
    switch (phase) {
      case kQkv:
        return L::kUnits[kQkv];
      case kKv:
        return tiles;
      case kOut:
        return L::kUnits[kOut];
      case kUp:
        return L::kUnits[kUp];
      default:
        return L::kUnits[kDown];
    }
  }
};

}  // namespace hanlin::decode_step

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_STEP_LAYOUT_CUH_
