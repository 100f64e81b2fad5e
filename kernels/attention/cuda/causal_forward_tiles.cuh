// Shared memory of causal attention's forward pass: what a thread block's warpgroups keep of the
// queries, the ring of {K, V} that one thread fills by tensor copies, and the products with them. A
// tile of kRows positions lies as panels of 64 elements of the head, swizzled over 128 bytes, and
// one of 16, swizzled over 32, where those remain.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_FORWARD_TILES_CUH_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_FORWARD_TILES_CUH_

#include <cstdint>

#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/attention/cuda/causal_tiles.cuh"
#include "kernels/attention/cuda/prefill_wgmma.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/wgmma.cuh"

namespace hanlin {

template <int kHeadDim, int kRows>
struct RowTile {
  static constexpr int kPanels = kHeadDim / 64;
  static constexpr int kPanelBytes = kRows * 128;
  static constexpr int kTail = kPanels * kPanelBytes;  // where the panel of 16 begins
  static constexpr bool kHasTail = kHeadDim % 64 != 0;
  static constexpr int kBytes = kRows * kHeadDim * 2;
  static_assert(kHeadDim % 64 == 0 || kHeadDim % 64 == 16);
  static_assert(kBytes % kTileAlignment == 0);

  // The half of a panel's descriptor (ptx::TileDescriptor) that differs from panel to panel: it
  // moves with the address, in units of 16 bytes. 32 bits, which the loops add up in one step.
  static __device__ __forceinline__ uint32_t Low(const uint8_t* tile) {
    return static_cast<uint32_t>(kPanelBytes / 16) << 16 |
           (ptx::SharedAddress(tile) & 0x3ffff) >> 4;
  }
  static __device__ __forceinline__ uint64_t Panel(uint32_t low) {
    return uint64_t{1u << 30 | 1024 / 16} << 32 | low;
  }
  static __device__ __forceinline__ uint64_t Tail(uint32_t low) {
    return uint64_t{3u << 30 | 256 / 16} << 32 | low;
  }
};

// s = Q K^T with the first kKeys of a tile of kTileKeys; q and k: RowTile::Low of the tiles.
template <int kHeadDim, int kKeys, int kTileKeys>
__device__ __forceinline__ void KeyScores(uint32_t q, uint32_t k, float (&s)[kKeys / 2]) {
  using Q = RowTile<kHeadDim, 64>;
  using K = RowTile<kHeadDim, kTileKeys>;
#pragma unroll
  for (int panel = 0; panel < Q::kPanels; ++panel) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      ptx::Wgmma<kKeys>::Product(s, Q::Panel(q + panel * (Q::kPanelBytes / 16) + step * 2),
                                 K::Panel(k + panel * (K::kPanelBytes / 16) + step * 2),
                                 panel + step > 0);
    }
  }
  if constexpr (Q::kHasTail) {
    ptx::Wgmma<kKeys>::Product(s, Q::Tail(q + Q::kTail / 16), K::Tail(k + K::kTail / 16), true);
  }
}

// o += weights V; v: RowTile::Low of the tile.
template <int kHeadDim, int kKeys>
__device__ __forceinline__ void AddValues(const uint32_t (&weights)[kKeys / 16][4], uint32_t v,
                                          float (&o)[kHeadDim / 2]) {
  using V = RowTile<kHeadDim, kKeys>;
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    ptx::ValueProduct<V::kPanels * 64>(o, weights[step], V::Panel(v + step * (16 * 128 / 16)));
    if constexpr (V::kHasTail) {
      ptx::ValueProduct<16>(o + V::kPanels * 32, weights[step],
                            V::Tail(v + V::kTail / 16 + step * (16 * 32 / 16)));
    }
  }
}

// Copies positions of a sequence from `first` on, zeros behind its end; `column` of the matrix
// that the maps describe.
template <int kHeadDim, int kRows>
__device__ __forceinline__ void CopyRows(const CausalAttentionMaps& maps, int column, int first,
                                         int sequence, uint8_t* tile, uint64_t* barrier) {
  using T = RowTile<kHeadDim, kRows>;
  const uint64_t policy = ptx::EvictNormalPolicy();
#pragma unroll
  for (int row = 0; row < kRows; row += kMapRows) {
#pragma unroll
    for (int panel = 0; panel < T::kPanels; ++panel) {
      ptx::TensorCopy(tile + panel * T::kPanelBytes + row * 128, &maps.panels, column + panel * 64,
                      first + row, sequence, barrier, policy);
    }
    if constexpr (T::kHasTail) {
      ptx::TensorCopy(tile + T::kTail + row * 32, &maps.tail, column + T::kPanels * 64, first + row,
                      sequence, barrier, policy);
    }
  }
}

// The ring of pairs of tiles of kKeys positions, then the queries of kGroups warpgroups, twice.
template <int kHeadDim, int kGroups, int kKeys, int kStageCount>
struct ForwardSpace {
  static constexpr int kStages = kStageCount;
  static constexpr int kBuffers = 2;
  static constexpr int kTileBytes = RowTile<kHeadDim, kKeys>::kBytes;
  static constexpr int kOwnBytes = RowTile<kHeadDim, 64>::kBytes;
  static constexpr int kBytes =
      2 * kStages * kTileBytes + kBuffers * kGroups * kOwnBytes + kTileAlignment;
  static_assert(kBytes + 1024 <= kMaxSharedBytes);

  uint8_t* tiles;
  __device__ explicit ForwardSpace(uint8_t* unaligned)
      : tiles(unaligned + (-ptx::SharedAddress(unaligned)) % kTileAlignment) {}
  __device__ __forceinline__ uint8_t* Pair(int stage) const {
    return tiles + stage * 2 * kTileBytes;
  }
  __device__ __forceinline__ uint8_t* Own(int buffer, int group) const {
    return Pair(kStages) + (buffer * kGroups + group) * kOwnBytes;
  }
};

// Where a thread is in a ring, and in which round, mod 2.
template <int kSize>
struct RingPlace {
  int at = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    const bool wraps = at == kSize - 1;
    at = wraps ? 0 : at + 1;
    parity ^= wraps ? 1 : 0;
  }
};

// Who may touch what of a ForwardSpace. A pair, and with the first pair of a block of rows the
// queries, is full when the bytes that were announced are there, and free again when every warp
// that computes has arrived; a warp frees every pair, after it has waited for it.
template <typename Space, int kGroups>
struct ForwardRing {
  using Pair = RingPlace<Space::kStages>;
  using Own = RingPlace<Space::kBuffers>;
  uint64_t full[Space::kStages], free[Space::kStages];
  uint64_t own_free[Space::kBuffers];

  // By one thread, before the block's barrier.
  __device__ void Init() {
    for (int i = 0; i < Space::kStages; ++i) {
      ptx::BarrierInit(&full[i], 1);
      ptx::BarrierInit(&free[i], kGroups * 4);
    }
    for (uint64_t& barrier : own_free) ptx::BarrierInit(&barrier, kGroups * 4);
    ptx::FenceBarrierInit();
  }

  __device__ __forceinline__ void WaitFull(const Pair& pair) {
    ptx::BarrierWait(&full[pair.at], pair.parity);
  }
  // All lanes have waited for it before one of them frees it.
  __device__ __forceinline__ void Free(const Pair& pair) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::Arrive(&free[pair.at]);
  }
  __device__ __forceinline__ void FreeOwn(const Own& own) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::Arrive(&own_free[own.at]);
  }
  // Lets pairs pass.
  __device__ __forceinline__ void Skip(Pair* pair, int count) {
    for (; count > 0; --count, pair->Next()) {
      WaitFull(*pair);
      Free(*pair);
    }
  }

  // The copying thread's side. In the first round a wait for the phase before it passes.
  __device__ __forceinline__ void WaitFree(const Pair& pair) {
    ptx::BarrierWait(&free[pair.at], pair.parity ^ 1);
  }
  __device__ __forceinline__ void WaitOwnFree(const Own& own) {
    ptx::BarrierWait(&own_free[own.at], own.parity ^ 1);
  }
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_FORWARD_TILES_CUH_
