// The kernel of skinny.h. A block multiplies a tile of W (any multiple of 8 rows up to 64 kGroups)
// by kColumns rows of x over its share of k. One thread of the last warp copies tiles of 64 inputs
// into a ring of stages (tensor copies, 128-byte swizzle), one warpgroup per 64 rows of W
// multiplies them (rows beyond the tile are whatever lies behind it and are dropped); the sums go
// through shared memory, where the blocks of a cluster that share k add them up, in the order of
// the blocks. Dynamic shared memory, aligned to 1024 bytes: stages of [W tile | x tile], room for
// the reads beyond the last tile, barriers and bias; afterwards the sums, float [kColumns][kGroups
// * 64 + 4].
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"
#include "kernels/gemm/cuda/skinny_params.h"

namespace hanlin {
namespace {

constexpr int kTileRowBytes = kSkinnyDepth * 2;

struct Barriers {
  uint64_t full[kSkinnyMaxStages];
  uint64_t empty[kSkinnyMaxStages];
};

// Lies behind the ring.
struct Tail {
  Barriers barriers;
  float bias[kSkinnyMaxRows];
};

// Warpgroups that multiply: kGroups side by side over the rows of the tile, kWays over blocks of k
// in turn, which shortens the chain of products that a launch has to wait for.
constexpr int kWarpgroups = 4;
constexpr int kConsumers = kWarpgroups * 128;
constexpr int kThreads = kConsumers + 32;

// Where this block works. The blocks of a cluster have the same tile of W and divide k.
struct Share {
  int row;     // first output
  int column;  // first row of x
  int k_begin;
  int k_blocks;  // of kSkinnyDepth inputs
};

__device__ __forceinline__ Share ShareOf(const SkinnyArguments& a, int columns) {
  const int part = static_cast<int>(blockIdx.x);
  const int begin = a.k_blocks * part / a.split;
  return {static_cast<int>(blockIdx.z) * a.rows, static_cast<int>(blockIdx.y) * columns, begin,
          a.k_blocks * (part + 1) / a.split - begin};
}

// Run by the last warp.
template <int kColumns>
__device__ __forceinline__ void CopyTiles(const SkinnyArguments& a, const Share& share,
                                          uint8_t* ring, Barriers& barriers) {
  const uint32_t weight_bytes = a.rows * kTileRowBytes;
  const uint32_t stage_bytes = weight_bytes + kColumns * kTileRowBytes;
  const uint64_t weight_policy =
      gridDim.y == 1 ? ptx::EvictFirstPolicy() : ptx::EvictNormalPolicy();
  const uint64_t x_policy = ptx::EvictNormalPolicy();
  const auto copy_weight = [&](int block, int stage) {
    ptx::ArriveExpect(&barriers.full[stage], stage_bytes);
    ptx::TensorCopy(ring + stage * stage_bytes, &a.weight_map,
                    (share.k_begin + block) * kSkinnyDepth, share.row, &barriers.full[stage],
                    weight_policy);
  };
  const auto copy_x = [&](int block, int stage) {
    ptx::TensorCopy(ring + stage * stage_bytes + weight_bytes, &a.x_map,
                    (share.k_begin + block) * kSkinnyDepth, share.column, &barriers.full[stage],
                    x_policy);
  };
  const bool leads = threadIdx.x % 32 == 0;
  const int ahead = min(a.stages, share.k_blocks);
  if (leads) {
    for (int i = 0; i < ahead; ++i) copy_weight(i, i);
    if (share.k_blocks - ahead <= a.lead) ptx::StartNext();
  }
  __syncwarp();
  ptx::WaitForPrevious();
  if (!leads) return;
  for (int i = 0; i < ahead; ++i) copy_x(i, i);
  int stage = 0;
  uint32_t parity = 0;
  for (int i = ahead; i < share.k_blocks; ++i) {
    ptx::BarrierWait(&barriers.empty[stage], parity);
    copy_weight(i, stage);
    copy_x(i, stage);
    if (share.k_blocks - 1 - i == a.lead) ptx::StartNext();
    if (++stage == a.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// The sums of one warpgroup: 64 rows of W by kColumns rows of x over every kWays-th block of k.
template <int kGroups, int kColumns>
__device__ __forceinline__ void MultiplyTiles(const SkinnyArguments& a, const Share& share,
                                              const uint8_t* ring, Barriers& barriers,
                                              float (&sums)[kColumns / 2]) {
  constexpr int kWays = SkinnyWays(kGroups * 64);
  const uint32_t weight_bytes = a.rows * kTileRowBytes;
  const uint32_t stage_bytes = weight_bytes + kColumns * kTileRowBytes;
  const int group = threadIdx.x / 128 % kGroups;
  const int way = threadIdx.x / 128 / kGroups;
  const bool leads = threadIdx.x % 32 == 0;
  int stage = way;  // a stage is one way's: their number is a multiple of kWays
  uint32_t parity = 0;
  int previous = -1;
  for (int i = way; i < share.k_blocks; i += kWays) {
    const uint8_t* tiles = ring + stage * stage_bytes;
    const uint64_t weight = ptx::SwizzledTile(tiles + group * 64 * kTileRowBytes);
    const uint64_t x = ptx::SwizzledTile(tiles + weight_bytes);
    ptx::BarrierWait(&barriers.full[stage], parity);
    ptx::WgmmaFence();
#pragma unroll
    for (int j = 0; j < kSkinnyDepth / 16; ++j) {
      ptx::Wgmma<kColumns>::Add(sums, weight + 2 * j, x + 2 * j);
    }
    ptx::WgmmaCommit();
    if (previous >= 0) {  // the block before this one has been read
      ptx::WgmmaWait<1>();
      if (leads) ptx::Arrive(&barriers.empty[previous]);
    }
    previous = stage;
    stage += kWays;
    if (stage >= a.stages) {
      stage -= a.stages;
      parity ^= 1;
    }
  }
  ptx::WgmmaWait<0>();
}

// Floats from column to column of the sums: stores have no bank conflicts.
template <int kGroups>
constexpr int kPitch = kGroups * 64 + 4;

// Floats of the sums of one way.
template <int kGroups, int kColumns>
constexpr int kTileFloats = kPitch<kGroups>* kColumns;

template <int kGroups, int kColumns>
__device__ __forceinline__ void StoreSums(const float (&sums)[kColumns / 2], float* tiles) {
  const int lane = threadIdx.x % 32;
  const int row = threadIdx.x / 32 % (4 * kGroups) * 16 + lane / 4;
  float* tile = tiles + threadIdx.x / 128 / kGroups * kTileFloats<kGroups, kColumns>;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 8 * j + lane % 4 * 2 + i % 2;
      tile[column * kPitch<kGroups> + row + i / 2 * 8] = sums[4 * j + i];
    }
  }
}

__device__ __forceinline__ float4 Plus(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// The sum over the ways of four rows of one column; `first` is the first way's.
template <int kGroups, int kColumns>
__device__ __forceinline__ float4 SumOfWays(const float* first) {
  float4 sum = *reinterpret_cast<const float4*>(first);
#pragma unroll
  for (int way = 1; way < kWarpgroups / kGroups; ++way) {
    sum = Plus(sum, *reinterpret_cast<const float4*>(first + way * kTileFloats<kGroups, kColumns>));
  }
  return sum;
}

// Four outputs of one row of x: what y holds for kResidual, else zeros.
__device__ __forceinline__ float4 LoadResidual(const SkinnyArguments& a, int64_t column, int row) {
  float4 old = {0.0f, 0.0f, 0.0f, 0.0f};
  if (a.epilogue != LinearEpilogue::kResidual || row >= a.n) return old;
  const float* y = static_cast<const float*>(a.y) + column * a.n + row;
  if (a.n % 4 == 0) return __ldcg(reinterpret_cast<const float4*>(y));
  old.x = __ldcg(y);
  if (row + 1 < a.n) old.y = __ldcg(y + 1);
  if (row + 2 < a.n) old.z = __ldcg(y + 2);
  if (row + 3 < a.n) old.w = __ldcg(y + 3);
  return old;
}

__device__ __forceinline__ void StoreOutputs(const SkinnyArguments& a, int64_t column, int row,
                                             float4 r, float4 old) {
  const int64_t at = column * a.n + row;
  if (row >= a.n) return;
  if (a.n % 4 != 0) {
    StoreLinear(a.epilogue, a.y, at, r.x, old.x);
    if (row + 1 < a.n) StoreLinear(a.epilogue, a.y, at + 1, r.y, old.y);
    if (row + 2 < a.n) StoreLinear(a.epilogue, a.y, at + 2, r.z, old.z);
    if (row + 3 < a.n) StoreLinear(a.epilogue, a.y, at + 3, r.w, old.w);
    return;
  }
  if (a.epilogue == LinearEpilogue::kResidual || a.epilogue == LinearEpilogue::kFloat32) {
    *reinterpret_cast<float4*>(static_cast<float*>(a.y) + at) = {old.x + r.x, old.y + r.y,
                                                                 old.z + r.z, old.w + r.w};
    return;
  }
  if (a.epilogue == LinearEpilogue::kGeluTanh) {
    r = {GeluTanh(r.x), GeluTanh(r.y), GeluTanh(r.z), GeluTanh(r.w)};
  } else if (a.epilogue == LinearEpilogue::kGeluErf) {
    r = {GeluErf(r.x), GeluErf(r.y), GeluErf(r.z), GeluErf(r.w)};
  }
  *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(a.y) + at) = {PackBFloat16(r.x, r.y),
                                                                      PackBFloat16(r.z, r.w)};
}

// The groups of four outputs that this block finishes: i counts rows first, then columns.
struct Part {
  int begin;
  int end;
};

__device__ __forceinline__ Part PartOf(const SkinnyArguments& a, const Share& share,
                                       int max_columns) {
  const int columns = min(static_cast<int64_t>(max_columns), a.m - share.column);
  const int vectors = columns * (a.rows / 4);
  const int part = static_cast<int>(blockIdx.x);
  return {vectors * part / a.split, vectors * (part + 1) / a.split};
}

// Adds up the ways of this block's tile, in place of the first, for the others of the cluster.
template <int kGroups, int kColumns>
__device__ __forceinline__ void AddWays(const SkinnyArguments& a, float* tiles) {
  for (int i = threadIdx.x; i < kColumns * (a.rows / 4); i += kThreads) {
    float* first = tiles + i / (a.rows / 4) * kPitch<kGroups> + i % (a.rows / 4) * 4;
    *reinterpret_cast<float4*>(first) = SumOfWays<kGroups, kColumns>(first);
  }
}

// The sum over the cluster's blocks that share k, in their order, at the place of `own`.
__device__ __forceinline__ float4 SumOfCluster(const SkinnyArguments& a, const float* own) {
  float4 parts[kSkinnyMaxSplit];
#pragma unroll
  for (int j = 0; j < kSkinnyMaxSplit; ++j) {
    if (j < a.split) {
      parts[j] = ptx::LoadFromCluster(ptx::ClusterAddress(own, j));
    }
  }
  float4 sum = parts[0];
#pragma unroll
  for (int j = 1; j < kSkinnyMaxSplit; ++j) {
    if (j < a.split) sum = Plus(sum, parts[j]);
  }
  return sum;
}

// Finishes this block's part of the outputs. `early` is LoadResidual of the thread's first group.
template <int kGroups, int kColumns>
__device__ __forceinline__ void Finish(const SkinnyArguments& a, const Share& share,
                                       const Part& part, const float* tiles, const float* bias,
                                       float4 early) {
  const int first = part.begin + static_cast<int>(threadIdx.x);
  for (int i = first; i < part.end; i += kThreads) {
    const int row = i % (a.rows / 4) * 4;
    const int column = i / (a.rows / 4);
    const float4 old = i == first ? early : LoadResidual(a, share.column + column, share.row + row);
    const float* own = tiles + column * kPitch<kGroups> + row;
    const float4 sum = a.split == 1 ? SumOfWays<kGroups, kColumns>(own) : SumOfCluster(a, own);
    StoreOutputs(a, share.column + column, share.row + row,
                 Plus(sum, *reinterpret_cast<const float4*>(bias + row)), old);
  }
}

template <int kGroups, int kColumns>
__global__ __launch_bounds__(kThreads,
                             1) void SkinnyKernel(const __grid_constant__ SkinnyArguments a) {
  extern __shared__ __align__(1024) uint8_t ring[];
  auto& tail = *reinterpret_cast<Tail*>(ring + SkinnyRingBytes(a.rows, kColumns, a.stages) +
                                        SkinnySlackBytes(a.rows, kColumns));
  Barriers& barriers = tail.barriers;
  float* const bias = tail.bias;
  const Share share = ShareOf(a, kColumns);
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < a.stages; ++i) {
      ptx::BarrierInit(&barriers.full[i], 1);
      ptx::BarrierInit(&barriers.empty[i], kGroups * 4);
    }
    ptx::FenceBarrierInit();
    ptx::PrefetchMap(&a.weight_map);
    ptx::PrefetchMap(&a.x_map);
  }
  for (int i = threadIdx.x; i < a.rows; i += kThreads) {
    const bool has_bias = a.bias != nullptr && share.row + i < a.n;
    bias[i] = has_bias ? __ldg(a.bias + share.row + i) : 0.0f;
  }
  __syncthreads();
  const Part part = PartOf(a, share, kColumns);
  const int first = part.begin + static_cast<int>(threadIdx.x);
  float4 early = {0.0f, 0.0f, 0.0f, 0.0f};
  float sums[kColumns / 2] = {};
  const bool multiplies = threadIdx.x < kConsumers;
  if (!multiplies) {
    CopyTiles<kColumns>(a, share, ring, barriers);
    __syncwarp();
    const int64_t block = blockIdx.x + int64_t{gridDim.x} * (blockIdx.y + gridDim.y * blockIdx.z);
    ptx::PrefetchToL2(a.next, block, int64_t{gridDim.x} * gridDim.y * gridDim.z);
  } else {
    ptx::WaitForPrevious();  // every thread reads or writes y
  }
  if (first < part.end) {
    early =
        LoadResidual(a, share.column + first / (a.rows / 4), share.row + first % (a.rows / 4) * 4);
  }
  if (multiplies) {
    MultiplyTiles<kGroups, kColumns>(a, share, ring, barriers, sums);
  }
  __syncwarp();
  __syncthreads();  // the ring is free
  auto* tiles = reinterpret_cast<float*>(ring);
  if (multiplies) StoreSums<kGroups, kColumns>(sums, tiles);
  __syncthreads();
  if (a.split > 1) {
    AddWays<kGroups, kColumns>(a, tiles);
    __syncwarp();
    ptx::ClusterArrive();
    ptx::ClusterWait();
  }
  Finish<kGroups, kColumns>(a, share, part, tiles, bias, early);
  if (a.split > 1) {  // nobody leaves while others read its sums
    __syncwarp();
    ptx::ClusterArrive();
    ptx::ClusterWait();
  }
}

template <int kGroups, int kColumns>
cudaError_t Launch(const SkinnyArguments& a, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(a.split, static_cast<unsigned>((a.m + kColumns - 1) / kColumns),
                    static_cast<unsigned>((a.n + a.rows - 1) / a.rows));
  shape.block = dim3(kThreads);
  shape.shared_bytes = SkinnyRingBytes(a.rows, kColumns, a.stages) +
                       SkinnySlackBytes(a.rows, kColumns) + sizeof(Tail);
  shape.cluster = a.split;
  return LaunchDependent(SkinnyKernel<kGroups, kColumns>, shape, stream, a);
}

template <int kColumns>
cudaError_t LaunchColumns(const SkinnyArguments& a, cudaStream_t stream) {
  return a.rows <= 64 ? Launch<1, kColumns>(a, stream) : Launch<2, kColumns>(a, stream);
}

}  // namespace

cudaError_t LaunchSkinny(const SkinnyArguments& arguments, int columns, cudaStream_t stream) {
  switch (columns) {
    case 8:
      return LaunchColumns<8>(arguments, stream);
    case 16:
      return LaunchColumns<16>(arguments, stream);
    case 32:
      return LaunchColumns<32>(arguments, stream);
    case 64:
      return LaunchColumns<64>(arguments, stream);
    case 128:
      return LaunchColumns<128>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hanlin
