// The warp that fills the ring of step_layout.cuh. Lane j owns slot j: it finds the slot's next
// unit and copies it as soon as the slot is empty. It runs ahead of the warps that compute, over
// the borders of phases and layers; only keys and values wait for the kernels before this one.
//
// No more than kWindow units are under way at a time: enough for the full read rate, and what the
// blocks tell each other does not queue behind more. While the ring is full and memory idle, the
// next units go to L2.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_WEIGHT_STREAM_CUH_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_WEIGHT_STREAM_CUH_

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/decode_step/cuda/step_layout.cuh"

namespace hanlin::decode_step {

template <typename L>
__device__ __forceinline__ void FillSlot(const DecodeStepParams& p, typename L::Shared& shared,
                                         Place place, const Walk<L>& walk, int slot) {
  const uint8_t *first, *second;
  const uint32_t bytes = walk.Pieces(p, shared, place, &first, &second);
  ptx::ArriveExpect(&shared.full[slot], 2 * bytes);
  if (second == first + bytes) {
    ptx::BulkCopyStreaming(shared.ring[slot], first, 2 * bytes, &shared.full[slot]);
  } else {
    ptx::BulkCopyStreaming(shared.ring[slot], first, bytes, &shared.full[slot]);
    ptx::BulkCopyStreaming(shared.ring[slot] + bytes, second, bytes, &shared.full[slot]);
  }
}

template <typename L>
__device__ __forceinline__ void FetchUnit(const DecodeStepParams& p,
                                          const typename L::Shared& shared, Place place,
                                          const Walk<L>& walk) {
  const uint8_t *first, *second;
  const uint32_t bytes = walk.Pieces(p, shared, place, &first, &second);
  ptx::BulkPrefetchToL2(first, bytes);
  ptx::BulkPrefetchToL2(second, bytes);
}

// A lane's place among the set ones of `mask`, counted from lane `start` around.
__device__ __forceinline__ int RankFrom(unsigned mask, int start, int lane) {
  const unsigned below = mask & ((1u << lane) - 1), later = mask >> start << start;
  return lane >= start ? __popc(below & later) : __popc(later) + __popc(below);
}

// By the whole warp.
template <typename L>
__device__ __forceinline__ void StreamWeights(const DecodeStepParams& p, typename L::Shared& shared,
                                              Place place) {
  static_assert(L::kSlots <= L::kUnits[kQkv], "the first filling of the ring is constant");
  constexpr unsigned kAllLanes = 0xffffffffu;
  constexpr int kWindow = 64 * 1024 / L::kUnitBytes;
  constexpr int kAhead = 4;  // units that go to L2
  const int slot = threadIdx.x % 32;
  Walk<L> walk;
  walk.Advance(slot, 0);
  if (slot < kWindow) FillSlot<L>(p, shared, place, walk, slot);
  __syncwarp();
  ptx::WaitForPrevious();
  const int tiles = TilesOfSplit(max(__ldcg(p.context), 0), place.split);
  for (int i = slot; i < tiles; i += 32) {
    shared.table[i] = __ldcg(p.kv.block_tables + place.split + i * kDecodeStepSplits);
  }
  __syncwarp();
  uint32_t filled = 0;  // how often the slot was filled
  if (slot < kWindow) {
    walk.Advance(L::kSlots, tiles);
    filled = 1;
  }
  bool wants = slot < L::kSlots, fetched = false;
  while (__any_sync(kAllLanes, wants)) {
    const uint32_t parity = (filled - 1) & 1;
    const bool pending = filled > 0 && !ptx::BarrierTest(&shared.full[slot], parity);
    const bool empty = wants && (filled == 0 || ptx::BarrierTest(&shared.empty[slot], parity));
    const unsigned under_way = __ballot_sync(kAllLanes, pending);
    const unsigned ready = __ballot_sync(kAllLanes, empty);
    const unsigned unit = wants ? slot + filled * L::kSlots : ~0u;
    const unsigned oldest = __reduce_min_sync(kAllLanes, unit);
    const int rank = RankFrom(ready, oldest % L::kSlots, slot);
    if (empty && rank < kWindow - __popc(under_way)) {
      FillSlot<L>(p, shared, place, walk, slot);
      walk.Advance(L::kSlots, tiles);
      wants = walk.layer < p.num_layers;
      fetched = false;
      ++filled;
    } else if (ready == 0 && under_way == 0 && unit - oldest < kAhead && !fetched) {
      FetchUnit<L>(p, shared, place, walk);
      fetched = true;
    }
    __syncwarp();
  }
}

}  // namespace hanlin::decode_step

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_WEIGHT_STREAM_CUH_
