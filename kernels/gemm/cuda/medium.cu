// The kernel of medium.h. A block multiplies 128 rows of x by kColumns rows of W over its part of
// k: pairs of warpgroups with 64 rows of x each and kColumns outputs as the wide operand take turns
// over blocks of 64 inputs. One thread of the last warp copies those into a ring of stages (tensor
// copies, 128-byte swizzle). The sums go through shared memory; where a cluster's blocks divide k,
// each sends the others their share and adds what it got in the order of the blocks. What follows
// the products runs once and is short code in loops: unrolled, it waited for its instructions.
// Dynamic shared memory, aligned to 1024 bytes: stages of [x | W], afterwards sums; then barriers
// and bias.
#include <cstddef>

#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"
#include "kernels/gemm/cuda/medium_params.h"

namespace hanlin {
namespace {

constexpr int kRowBytes = kMediumDepth * 2;
constexpr int kXBytes = kMediumRows * kRowBytes;
constexpr int kPairWarps = 8;  // of a pair of warpgroups
constexpr int kConsumerWarps = kPairWarps * kMediumWays;
constexpr int kConsumers = kConsumerWarps * 32;
constexpr int kThreads = kConsumers + 32;

// Lies behind the ring.
template <int kColumns>
struct Tail {
  uint64_t full[kMediumMaxStages];
  uint64_t empty[kMediumMaxStages];
  uint64_t sent;
  float bias[kColumns];
};

// Where this block works.
struct Place {
  int part;    // of k
  int column;  // first output
  int k_begin;
  int k_blocks;  // of kMediumDepth inputs
};

template <int kColumns>
__device__ __forceinline__ Place PlaceOf(const MediumArguments& a) {
  const int part = static_cast<int>(blockIdx.x);
  const int begin = a.k_blocks * part / a.split;
  return {part, static_cast<int>(blockIdx.y) * kColumns, begin,
          a.k_blocks * (part + 1) / a.split - begin};
}

// Run by the last warp.
template <int kColumns>
__device__ __forceinline__ void CopyTiles(const MediumArguments& a, const Place& place,
                                          uint8_t* ring, Tail<kColumns>& tail) {
  constexpr int kStageBytes = MediumStageBytes(kColumns);
  const uint64_t weight_policy = ptx::EvictFirstPolicy();
  const uint64_t x_policy = ptx::EvictNormalPolicy();
  const auto copy_weight = [&](int block, int stage) {
    ptx::ArriveExpect(&tail.full[stage], kStageBytes);
    ptx::TensorCopy(ring + stage * kStageBytes + kXBytes, &a.weight_map,
                    (place.k_begin + block) * kMediumDepth, place.column, &tail.full[stage],
                    weight_policy);
  };
  const auto copy_x = [&](int block, int stage) {
    ptx::TensorCopy(ring + stage * kStageBytes, &a.x_map, (place.k_begin + block) * kMediumDepth, 0,
                    &tail.full[stage], x_policy);
  };
  const bool leads = threadIdx.x % 32 == 0;
  const int ahead = min(a.stages, place.k_blocks);
  if (leads) {
    for (int i = 0; i < ahead; ++i) copy_weight(i, i);
    if (place.k_blocks - ahead <= a.lead) ptx::StartNext();
  }
  __syncwarp();
  ptx::WaitForPrevious();
  if (!leads) return;
  for (int i = 0; i < ahead; ++i) copy_x(i, i);
  int stage = 0;
  uint32_t parity = 0;
  for (int i = ahead; i < place.k_blocks; ++i) {
    ptx::BarrierWait(&tail.empty[stage], parity);
    copy_weight(i, stage);
    copy_x(i, stage);
    if (place.k_blocks - 1 - i == a.lead) ptx::StartNext();
    if (++stage == a.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// The sums of one warpgroup: 64 rows of x by kColumns outputs over every kMediumWays-th block of k.
template <int kColumns>
__device__ __forceinline__ void MultiplyTiles(const MediumArguments& a, const Place& place,
                                              const uint8_t* ring, Tail<kColumns>& tail,
                                              float (&sums)[kColumns / 2]) {
  constexpr int kStageBytes = MediumStageBytes(kColumns);
  const int way = threadIdx.x / 256;
  const bool leads = threadIdx.x % 32 == 0;
  int stage = way;
  uint32_t parity = 0;
  for (int i = way; i < place.k_blocks; i += kMediumWays) {
    const uint8_t* tiles = ring + stage * kStageBytes;
    const uint64_t x = ptx::SwizzledTile(tiles + threadIdx.x / 128 % 2 * (kXBytes / 2));
    const uint64_t weight = ptx::SwizzledTile(tiles + kXBytes);
    ptx::BarrierWait(&tail.full[stage], parity);
    ptx::WgmmaFence();
#pragma unroll
    for (int j = 0; j < kMediumDepth / 16; ++j) {
      ptx::Wgmma<kColumns>::Add(sums, x + 2 * j, weight + 2 * j);
    }
    ptx::WgmmaCommit();
    // The tensor cores may idle for a moment, the ring's stages may not.
    ptx::WgmmaWait<0>();
    if (leads) ptx::Arrive(&tail.empty[stage]);
    stage += kMediumWays;
    if (stage >= a.stages) {
      stage -= a.stages;
      parity ^= 1;
    }
  }
  ptx::WgmmaResults(sums);
}

// A thread's part of a unit: two columns of two rows. Unit u: rows from u / (kColumns / 8) * 16,
// columns from u % (kColumns / 8) * 8.
struct Cell {
  int row;     // and row + 8
  int column;  // in the tile, and column + 1
};

template <int kColumns>
__device__ __forceinline__ Cell CellOf(int unit) {
  const int lane = threadIdx.x % 32;
  return {unit / (kColumns / 8) * 16 + lane / 4, unit % (kColumns / 8) * 8 + lane % 4 * 2};
}

// Stores the sums as [way][unit][lane].
template <int kColumns>
__device__ __forceinline__ void StoreSums(const float (&sums)[kColumns / 2], float4* own) {
  float4* to = own + threadIdx.x / 32 * (kColumns / 8) * 32 + threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
    to[j * 32] = {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]};
  }
}

__device__ __forceinline__ float4 SumOf(const float4* first, int parts, int stride) {
  float4 sum = *first;
  for (int part = 1; part < parts; ++part) {
    const float4 other = first[part * stride];
    sum = {sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w};
  }
  return sum;
}

// The first unit that part `part` of a cluster finishes.
template <int kColumns>
__device__ __forceinline__ int UnitBegin(int part, int split) {
  return (kColumns * part + split - 1) / split;
}

// Sends this block's sums to the blocks that finish them: as [part][unit there][lane].
template <int kColumns>
__device__ __forceinline__ void SendSums(const MediumArguments& a, const Place& place,
                                         const float4* own, float4* sent, Tail<kColumns>& tail) {
  const int lane = threadIdx.x % 32;
  const int room = MediumUnits(kColumns, a.split);
#pragma unroll 1
  for (int unit = threadIdx.x / 32; unit < kColumns; unit += kConsumerWarps) {
    const int owner = unit * a.split / kColumns;
    const int slot = place.part * room + unit - UnitBegin<kColumns>(owner, a.split);
    ptx::StoreAsync(ptx::ClusterAddress(sent + slot * 32 + lane, owner),
                    SumOf(own + unit * 32 + lane, kMediumWays, kColumns * 32),
                    ptx::ClusterAddress(&tail.sent, owner));
  }
}

// What y holds for kResidual, else zeros.
__device__ __forceinline__ float2 LoadResidual(const MediumArguments& a, int row, int column) {
  if (a.epilogue != LinearEpilogue::kResidual || row >= a.m || column >= a.n) return {0.0f, 0.0f};
  return __ldcg(
      reinterpret_cast<const float2*>(static_cast<const float*>(a.y) + row * a.n + column));
}

// r / (1 + e^(-2 u)) is GeluTanh without its branches, a few ulp of fp32 apart.
__device__ __forceinline__ float GeluTanhFast(float r) {
  const float u = 0.79788456f * r * (1.0f + 0.044715f * r * r);
  return __fdividef(r, 1.0f + ptx::Exp2(-2.8853901f * u));
}

__device__ __forceinline__ void StoreOutputs(const MediumArguments& a, int row, int column,
                                             float2 r, float2 old) {
  if (row >= a.m || column >= a.n) return;
  const int64_t at = row * a.n + column;
  if (a.epilogue == LinearEpilogue::kResidual || a.epilogue == LinearEpilogue::kFloat32) {
    *reinterpret_cast<float2*>(static_cast<float*>(a.y) + at) = {old.x + r.x, old.y + r.y};
    return;
  }
  if (a.epilogue == LinearEpilogue::kGeluTanh) {
    r = {GeluTanhFast(r.x), GeluTanhFast(r.y)};
  } else if (a.epilogue == LinearEpilogue::kGeluErf) {
    r = {GeluErf(r.x), GeluErf(r.y)};
  }
  *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.y) + at) = PackBFloat16(r.x, r.y);
}

// The residual of a thread's next unit, fetched while the one before it is added up.
struct Residual {
  float2 low;
  float2 high;
};

template <int kColumns>
__device__ __forceinline__ Residual ResidualOf(const MediumArguments& a, const Place& place,
                                               int unit, int end) {
  if (unit >= end) return {};
  const Cell cell = CellOf<kColumns>(unit);
  return {LoadResidual(a, cell.row, place.column + cell.column),
          LoadResidual(a, cell.row + 8, place.column + cell.column)};
}

// Adds up and finishes the units of this block: `parts` sums of each, `stride` float4 apart.
template <int kColumns>
__device__ __forceinline__ void Finish(const MediumArguments& a, const Place& place,
                                       const float4* sums, int parts, int stride, int begin,
                                       int end, const float* bias, Residual next) {
#pragma unroll 1
  for (int unit = begin + threadIdx.x / 32; unit < end; unit += kConsumerWarps) {
    const Residual old = next;
    next = ResidualOf<kColumns>(a, place, unit + kConsumerWarps, end);
    const Cell cell = CellOf<kColumns>(unit);
    const float4 sum = SumOf(sums + (unit - begin) * 32 + threadIdx.x % 32, parts, stride);
    const float2 b = *reinterpret_cast<const float2*>(bias + cell.column);
    const int column = place.column + cell.column;
    StoreOutputs(a, cell.row, column, {sum.x + b.x, sum.y + b.y}, old.low);
    StoreOutputs(a, cell.row + 8, column, {sum.z + b.x, sum.w + b.y}, old.high);
  }
}

template <int kColumns>
__global__ __launch_bounds__(kThreads,
                             1) void MediumKernel(const __grid_constant__ MediumArguments a) {
  extern __shared__ __align__(1024) uint8_t ring[];
  auto& tail = *reinterpret_cast<Tail<kColumns>*>(ring + MediumStageBytes(kColumns) * a.stages);
  const Place place = PlaceOf<kColumns>(a);
  const int begin = UnitBegin<kColumns>(place.part, a.split);
  const int end = UnitBegin<kColumns>(place.part + 1, a.split);
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < a.stages; ++i) {
      ptx::BarrierInit(&tail.full[i], 1);
      ptx::BarrierInit(&tail.empty[i], kPairWarps);
    }
    ptx::BarrierInit(&tail.sent, 1);
    ptx::FenceBarrierInit();
    if (a.split > 1) ptx::ArriveExpect(&tail.sent, a.split * (end - begin) * kMediumUnitBytes);
    ptx::PrefetchMap(&a.weight_map);
    ptx::PrefetchMap(&a.x_map);
  }
  for (int i = threadIdx.x; i < kColumns; i += kThreads) {
    const bool has_bias = a.bias != nullptr && place.column + i < a.n;
    tail.bias[i] = has_bias ? __ldg(a.bias + place.column + i) : 0.0f;
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    CopyTiles<kColumns>(a, place, ring, tail);
    __syncwarp();
    const int64_t block = blockIdx.x + int64_t{gridDim.x} * blockIdx.y;
    ptx::PrefetchToL2(a.next, block, int64_t{gridDim.x} * gridDim.y);
    if (a.split > 1) {
      __syncwarp();
      ptx::ClusterArrive();
      ptx::ClusterWait();
    }
    return;
  }
  float sums[kColumns / 2] = {};
  ptx::WaitForPrevious();  // every thread reads or writes y
  MultiplyTiles<kColumns>(a, place, ring, tail, sums);
  if (a.split > 1) ptx::ClusterArrive();
  ptx::NamedBarrier(1, kConsumers);  // the ring is free
  auto* const own = reinterpret_cast<float4*>(ring);
  StoreSums<kColumns>(sums, own);
  const Residual first = ResidualOf<kColumns>(a, place, begin + threadIdx.x / 32, end);
  ptx::NamedBarrier(1, kConsumers);
  if (a.split == 1) {
    Finish<kColumns>(a, place, own, kMediumWays, kColumns * 32, begin, end, tail.bias, first);
    return;
  }
  ptx::ClusterWait();  // the others' rings are free, their barriers there
  auto* const sent = reinterpret_cast<float4*>(ring + MediumOwnBytes(kColumns));
  SendSums<kColumns>(a, place, own, sent, tail);
  ptx::ClusterBarrierWait(&tail.sent, 0);  // nobody leaves before, either
  Finish<kColumns>(a, place, sent, a.split, MediumUnits(kColumns, a.split) * 32, begin, end,
                   tail.bias, first);
}

template <int kColumns>
cudaError_t Launch(const MediumArguments& a, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(a.split, static_cast<unsigned>((a.n + kColumns - 1) / kColumns));
  shape.block = dim3(kThreads);
  shape.shared_bytes = MediumStageBytes(kColumns) * a.stages + sizeof(Tail<kColumns>);
  shape.cluster = a.split;
  return LaunchDependent(MediumKernel<kColumns>, shape, stream, a);
}

// Finds the kernel of this width.
template <size_t kIndex = 0>
cudaError_t LaunchColumns(const MediumArguments& a, int columns, cudaStream_t stream) {
  if constexpr (kIndex == sizeof(kMediumColumns) / sizeof(int)) {
    return cudaErrorInvalidValue;
  } else {
    if (columns == kMediumColumns[kIndex]) return Launch<kMediumColumns[kIndex]>(a, stream);
    return LaunchColumns<kIndex + 1>(a, columns, stream);
  }
}

}  // namespace

cudaError_t LaunchMedium(const MediumArguments& arguments, int columns, cudaStream_t stream) {
  return LaunchColumns(arguments, columns, stream);
}

}  // namespace hanlin
