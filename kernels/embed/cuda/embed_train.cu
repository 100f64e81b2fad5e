// See embed_train.h. Forward: a thread takes sixteen bytes. Backward: a block takes a stretch of
// the sorted rows, whatever their ids.
#include "kernels/base/cuda/packed.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/embed/cuda/embed_train_params.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) EmbedTrainKernel(const CudaEmbedTrainParams p) {
  constexpr int kSize = kPacked<T>;
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kSize;
  if (at >= p.rows * p.width) return;
  const int64_t row = at / p.width, column = at - row * p.width;
  const int64_t id = p.ids[row] - p.vocabulary_begin;
  float values[kSize] = {};
  if (id >= 0 && id < p.vocabulary_size) {
    LoadPacked(static_cast<const T*>(p.table) + id * p.width + column, values);
  }
  if (p.position_table != nullptr) {
    float position[kSize];
    LoadPacked(p.position_table + p.positions[row] * p.width + column, position);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] += position[i];
  }
  StorePacked(static_cast<T*>(p.out) + at, values);
}

constexpr int kPlaces = kThreads;  // of `order`, a block's
constexpr int kLanes = 8;          // of a group: 128 bytes of a row
constexpr int kGroups = kThreads / kLanes;

// Adds the places from `place` on that have `id`, the block's groups together; a warp's sum of
// them goes to `sums`, in the order of its groups.
template <typename T>
__device__ __forceinline__ void SumOfLongRun(const CudaEmbedBackwardParams& p, int64_t place,
                                             int32_t id, int64_t column,
                                             float (*sums)[kLanes][kPacked<T>]) {
  constexpr int kSize = kPacked<T>;
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const unsigned lanes = ((1u << kLanes) - 1) << (group * kLanes % 32);
  float total[kSize] = {};
  // A lane looks a place up, all lanes of the group read its row. `order` is fetched one step ahead
  // and a row along with its id, so a step takes the time of one fetch.
  const auto places = static_cast<uint32_t>(p.rows);
  uint32_t at = static_cast<uint32_t>(place) + threadIdx.x;
  int32_t next = at < places ? p.order[at] : -1;
  for (bool more = true; more;) {
    const int32_t row = next;
    at += kThreads;
    next = at < places ? p.order[at] : -1;
    uint4 raw[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      const int64_t from = __shfl_sync(lanes, row, i, kLanes);
      raw[i] = make_uint4(0, 0, 0, 0);
      if (from >= 0 && column < p.width) {
        raw[i] = LoadRaw(static_cast<const T*>(p.dout) + from * p.width + column);
      }
    }
    const int own = row >= 0 && p.ids[row] == id;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      more = __shfl_sync(lanes, own, i, kLanes) != 0;
      if (more) {
        float values[kSize];
        Unpack(raw[i], values);
#pragma unroll
        for (int c = 0; c < kSize; ++c) total[c] += values[c];
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int c = 0; c < kSize; ++c) {
#pragma unroll
    for (int offset = kLanes; offset < 32; offset *= 2) {
      total[c] += __shfl_xor_sync(0xffffffffu, total[c], offset);
    }
    if (threadIdx.x % 32 < kLanes) sums[threadIdx.x / 32][lane][c] = total[c];
  }
}

// A block takes kPlaces places of `order` and kLanes packs of columns. All its rows go to shared
// memory at once, then a group of lanes takes the run of an id, the rows that have it. A run
// belongs to the block where it begins, which also adds what of it lies beyond its places.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    EmbedBackwardKernel(const CudaEmbedBackwardParams p, unsigned slabs) {
  constexpr int kSize = kPacked<T>;
  constexpr int kWarps = kThreads / 32;
  __shared__ uint4 packs[kPlaces][kLanes];
  __shared__ float beyond[kWarps][kLanes][kSize];
  __shared__ int32_t ids[kPlaces + 2];  // from the place before the block's to the one behind
  __shared__ int32_t rows[kPlaces];     // -1: not the block's to add
  __shared__ int32_t firsts[kPlaces + 1], warp_runs[kWarps];
  const int thread = threadIdx.x, lane = thread % kLanes, group = thread / kLanes;
  const int64_t begin = int64_t{blockIdx.x / slabs} * kPlaces;
  const int64_t column = (int64_t{blockIdx.x % slabs} * kLanes + lane) * kSize;
  const auto places = static_cast<int>(p.rows - begin < kPlaces ? p.rows - begin : kPlaces);

  const auto id_of = [&](int64_t place) {
    return place >= 0 && place < p.rows ? p.ids[p.order[place]] : -1;
  };
  const int32_t row = thread < places ? p.order[begin + thread] : -1;
  const int32_t id = row >= 0 ? p.ids[row] : -1;
  ids[thread + 1] = id;
  if (thread == 0) ids[0] = id_of(begin - 1);
  if (thread == kThreads - 1) ids[kPlaces + 1] = id_of(begin + kPlaces);
  __syncthreads();
  const auto in_shard = [&](int32_t some) { return some >= p.begin && some < p.begin + p.size; };
  rows[thread] = id != ids[0] && in_shard(id) ? row : -1;
  const bool first = row >= 0 && id != ids[thread];
  const unsigned warp_firsts = __ballot_sync(0xffffffffu, first);
  if (thread % 32 == 0) warp_runs[thread / 32] = __popc(warp_firsts);
  __syncthreads();
  int runs = 0;  // of the block
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == thread / 32 && first) {
      firsts[runs + __popc(warp_firsts & ((1u << thread % 32) - 1))] = thread;
    }
    runs += warp_runs[w];
  }
  if (thread == 0) firsts[runs] = places;
  if (column < p.width) {
#pragma unroll
    for (int i = 0; i < kPlaces / kGroups; ++i) {
      const int place = i * kGroups + group;
      const int64_t from = rows[place];
      if (from < 0) continue;
      ptx::CopyOrZero(ptx::SharedAddress(&packs[place][lane]),
                      static_cast<const T*>(p.dout) + from * p.width + column, true);
    }
  }
  ptx::CommitCopies();
  const int32_t last = ids[places];
  const bool goes_on = last == ids[kPlaces + 1] && last != ids[0] && in_shard(last);
  if (goes_on) SumOfLongRun<T>(p, begin + kPlaces, last, column, beyond);
  ptx::WaitForCopies<0>();
  __syncthreads();

  if (column >= p.width) return;
  for (int run = group; run < runs; run += kGroups) {
    const int from = firsts[run], end = firsts[run + 1];
    if (rows[from] < 0) continue;
    float* const to = p.dtable + (ids[from + 1] - p.begin) * p.width + column;
    float old[kSize], sums[kSize] = {};
    LoadPacked(to, old);
#pragma unroll 4
    for (int place = from; place < end; ++place) {
      float values[kSize];
      Unpack(packs[place][lane], values);
#pragma unroll
      for (int c = 0; c < kSize; ++c) sums[c] += values[c];
    }
    if (goes_on && run == runs - 1) {
      for (int w = 0; w < kWarps; ++w) {
#pragma unroll
        for (int c = 0; c < kSize; ++c) sums[c] += beyond[w][lane][c];
      }
    }
#pragma unroll
    for (int c = 0; c < kSize; ++c) sums[c] += old[c];
    StorePacked(to, sums);
  }
}

template <typename T>
void Forward(const CudaEmbedTrainParams& p, cudaStream_t stream) {
  const int64_t packs = p.rows * p.width / kPacked<T>;
  EmbedTrainKernel<T>
      <<<static_cast<unsigned>((packs + kThreads - 1) / kThreads), kThreads, 0, stream>>>(p);
}

template <typename T>
void Backward(const CudaEmbedBackwardParams& p, cudaStream_t stream) {
  constexpr int64_t kColumns = kLanes * kPacked<T>;
  const auto slabs = static_cast<unsigned>((p.width + kColumns - 1) / kColumns);
  const auto chunks = static_cast<unsigned>((p.rows + kPlaces - 1) / kPlaces);
  EmbedBackwardKernel<T><<<chunks * slabs, kThreads, 0, stream>>>(p, slabs);
}

}  // namespace

cudaError_t LaunchEmbedTrain(const CudaEmbedTrainParams& params, cudaStream_t stream) {
  if (params.type == ComputeType::kFloat32) {
    Forward<float>(params, stream);
  } else {
    Forward<__nv_bfloat16>(params, stream);
  }
  return cudaGetLastError();
}

cudaError_t LaunchEmbedBackward(const CudaEmbedBackwardParams& params, cudaStream_t stream) {
  if (params.type == ComputeType::kFloat32) {
    Backward<float>(params, stream);
  } else {
    Backward<__nv_bfloat16>(params, stream);
  }
  return cudaGetLastError();
}

}  // namespace hanlin
