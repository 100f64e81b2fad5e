// How a block sees the row that its cluster works on: shared memory, its share of the ids, and the
// reductions over the cluster. Shared memory: Scratch, then float [size], the logits of the ids
// [first, first + size); beyond the vocabulary -infinity; then uint8_t [size / 4], hints of the
// draw's noise (sample_kernel.cuh). Without clusters a row does not fit: the
// plain path keeps it in global memory.
#ifndef HANLIN_KERNELS_SAMPLING_CUDA_ROW_CUH_
#define HANLIN_KERNELS_SAMPLING_CUDA_ROW_CUH_

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/sampling/cuda/law.cuh"
#include "kernels/sampling/cuda/sample_params.h"

namespace hanlin::sampling {

constexpr int kThreads = kSampleThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = kThreads;  // of a histogram; a thread scans one
constexpr int kBorder = 256;     // ids compared pairwise
constexpr uint32_t kFull = 0xffffffffu;
constexpr int32_t kAnyId = 0x7fffffff;

// Keeps x of id when x > value, or x == value and id <= this id.
struct Cut {
  float value;
  int32_t id;
};

__device__ __forceinline__ bool Keeps(const Cut& cut, float x, int32_t id) {
  return x > cut.value || (x == cut.value && id <= cut.id);
}

// An id of draw_list.cuh, its logit, and the largest float below that.
struct Asked {
  float value;
  float below;
  int32_t id;
};
constexpr int kAsked = 3;  // of them in one pass over the row

struct alignas(16) Scratch {
  uint32_t low[kBins];  // mass of the bins, 64 bits in two halves
  uint32_t high[kBins];
  uint64_t warp[2][kWarps];  // of reductions, taken in turn
  uint64_t scan[kWarps];
  uint64_t peer[2];  // this block's share of a cluster's reduction, in turn
  uint32_t warp_low[2][kWarps];
  uint32_t peer_low[2];
  uint64_t crossing_before;
  uint32_t bar;  // of the draw: an ordered score that one of the ids has
  int32_t crossing_bin;
  int32_t border_count;  // in rank 0, as is the border
  Cut cut;
  int32_t near_count;  // of draw_list.cuh
  int32_t verdict;
  Asked asked[kAsked];
  float border_x[kBorder];
  int32_t border_id[kBorder];
  uint32_t border_mass[kBorder];
};
static_assert(sizeof(Scratch) == kSampleScratchBytes);

// Functions, so that the compiler knows the address space wherever they are used.
__device__ __forceinline__ Scratch& Own() {
  extern __shared__ __align__(16) uint8_t shared[];
  return *reinterpret_cast<Scratch*>(shared);
}

// Orders (value, id) by value ascending, then id descending, so that the largest is the law's pick.
__device__ __forceinline__ uint64_t Pick(float value, int32_t id) {
  return static_cast<uint64_t>(law::Ordered(value)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float PickValue(uint64_t pick) {
  return law::FromOrdered(static_cast<uint32_t>(pick >> 32));
}
__device__ __forceinline__ int32_t PickId(uint64_t pick) {
  return static_cast<int32_t>(~static_cast<uint32_t>(pick));
}

__device__ __forceinline__ uint64_t WarpLargest(uint64_t value) {
  const auto high = static_cast<uint32_t>(value >> 32);
  const uint32_t top = __reduce_max_sync(kFull, high);
  const uint32_t low = __reduce_max_sync(kFull, high == top ? static_cast<uint32_t>(value) : 0);
  return static_cast<uint64_t>(top) << 32 | low;
}

template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(kFull, value, offset);
  }
  return value;
}

template <bool kInShared>
struct Row {
  static constexpr bool kShared = kInShared;

  float* global;  // [slice] the logits, unless kInShared
  int32_t vocabulary;
  int32_t first;  // id of this block's slice
  int32_t size;   // of the slice, a multiple of 64
  int rank;
  int ranks;
  int turn = 0;  // of the reductions' buffers

  // Ids of the slice that exist.
  __device__ __forceinline__ int32_t Valid() const { return max(0, min(size, vocabulary - first)); }

  __device__ __forceinline__ float* Logits() const {
    return kInShared ? reinterpret_cast<float*>(&Own() + 1) : global;
  }
  // Only where the logits are in shared memory.
  __device__ __forceinline__ uint8_t* Hints() const {
    return reinterpret_cast<uint8_t*>(Logits() + size);
  }
  __device__ __forceinline__ float4 FourLogits(int i) const {
    return *reinterpret_cast<const float4*>(Logits() + i);
  }
  __device__ __forceinline__ void KeepFour(int i, float4 x) const {
    *reinterpret_cast<float4*>(Logits() + i) = x;
  }

  // Only Hopper's kernel has clusters, so before sm_90 there is nothing to ask for them.
  __device__ __forceinline__ void Sync() const {
#if __CUDA_ARCH__ >= 900
    if (ranks > 1) {
      cooperative_groups::this_cluster().sync();
      return;
    }
#endif
    __syncthreads();
  }

  // `own`, an address in Own(), in another block of the cluster.
  template <typename T>
  __device__ __forceinline__ T* At(T* own, [[maybe_unused]] int other) const {
#if __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().map_shared_rank(own, other);
#else
    return own;
#endif
  }

  // The largest of the cluster's threads, of two values at once; everyone gets the result.
  __device__ __forceinline__ void Largest(uint64_t& a, uint32_t& b) {
    Scratch& s = Own();
    const int lane = threadIdx.x % 32;
    turn ^= 1;
    a = WarpLargest(a);
    b = __reduce_max_sync(kFull, b);
    if (lane == 0) {
      s.warp[turn][threadIdx.x / 32] = a;
      s.warp_low[turn][threadIdx.x / 32] = b;
    }
    __syncthreads();
    a = WarpLargest(s.warp[turn][lane]);
    b = __reduce_max_sync(kFull, s.warp_low[turn][lane]);
    if (ranks == 1) return;
    if (threadIdx.x == 0) {
      s.peer[turn] = a;
      s.peer_low[turn] = b;
    }
    Sync();
    a = WarpLargest(lane < ranks ? *At(&s.peer[turn], lane) : 0);
    b = __reduce_max_sync(kFull, lane < ranks ? *At(&s.peer_low[turn], lane) : 0);
  }
  __device__ __forceinline__ uint64_t Largest(uint64_t a) {
    uint32_t unused = 0;
    Largest(a, unused);
    return a;
  }

  __device__ __forceinline__ uint32_t Sum(uint32_t value) {
    Scratch& s = Own();
    const int lane = threadIdx.x % 32;
    turn ^= 1;
    value = __reduce_add_sync(kFull, value);
    if (lane == 0) s.warp_low[turn][threadIdx.x / 32] = value;
    __syncthreads();
    value = __reduce_add_sync(kFull, s.warp_low[turn][lane]);
    if (ranks == 1) return value;
    if (threadIdx.x == 0) s.peer_low[turn] = value;
    Sync();
    return __reduce_add_sync(kFull, lane < ranks ? *At(&s.peer_low[turn], lane) : 0);
  }

  // The sum over the cluster's threads, always in the same order.
  template <typename T>
  __device__ __forceinline__ T Sum(T value) {
    static_assert(sizeof(T) == sizeof(uint64_t));
    Scratch& s = Own();
    const int lane = threadIdx.x % 32;
    turn ^= 1;
    auto* warps = reinterpret_cast<T*>(s.warp[turn]);
    auto* own = reinterpret_cast<T*>(&s.peer[turn]);
    value = WarpSum(value);
    if (lane == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = WarpSum(warps[lane]);
    if (ranks == 1) return value;
    if (threadIdx.x == 0) *own = value;
    Sync();
    return WarpSum(lane < ranks ? *At(own, lane) : T{});
  }
};
static_assert(kWarps == 32, "reductions read one value per lane");

// The row's adjusted logits; of the ids that this thread loaded their largest, and the sum and
// number of those that are not -infinity.
struct Extremes {
  float max;
  int32_t max_id;
  float min;
  float thread_max;
  float thread_sum;
  int thread_count;
};

}  // namespace hanlin::sampling

#endif  // HANLIN_KERNELS_SAMPLING_CUDA_ROW_CUH_
