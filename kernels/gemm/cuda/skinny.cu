// The kernel of skinny.h. A block multiplies kRows rows of W by kColumns rows of x over its share
// of k. One thread of the last warp copies tiles of 64 inputs into a ring of stages (tensor copies,
// 128-byte swizzle), one warpgroup per 64 rows of W multiplies them; the sums go through shared
// memory, where the blocks of a cluster that share k add them up, in the order of the blocks.
// Dynamic shared memory, aligned to 1024 bytes: stages of [W tile | x tile]; afterwards the sums,
// float [kColumns][kRows + 4].
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/base/cuda/wgmma.cuh"
#include "kernels/gemm/cuda/skinny_params.h"

namespace hanlin {
namespace {

constexpr int kTileRowBytes = kSkinnyDepth * 2;
constexpr int kPad = 4;  // floats between the sums of two columns: stores without bank conflicts

struct Barriers {
  uint64_t full[kSkinnyMaxStages];
  uint64_t empty[kSkinnyMaxStages];
};

// Lies behind the ring.
template <int kRows>
struct Tail {
  Barriers barriers;
  float bias[kRows];
};

// Walks round the ring.
struct Position {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Where this block works.
struct Share {
  int row;      // first output
  int column;   // first row of x
  int k_begin;  // blocks of kSkinnyDepth inputs
  int k_blocks;
};

__device__ __forceinline__ Share ShareOf(const SkinnyArguments& a, int rows, int columns) {
  const int split = gridDim.x;
  const int begin = a.k_blocks * blockIdx.x / split;
  return {static_cast<int>(blockIdx.z) * rows, static_cast<int>(blockIdx.y) * columns, begin,
          a.k_blocks * (static_cast<int>(blockIdx.x) + 1) / split - begin};
}

template <int kRows, int kColumns>
__device__ __forceinline__ void CopyTiles(const SkinnyArguments& a, const Share& share,
                                          uint8_t* ring, Barriers& barriers) {
  constexpr uint32_t kWeightBytes = kRows * kTileRowBytes;
  constexpr uint32_t kStageBytes = kWeightBytes + kColumns * kTileRowBytes;
  const uint64_t weight_policy =
      gridDim.y == 1 ? ptx::EvictFirstPolicy() : ptx::EvictNormalPolicy();
  const uint64_t x_policy = ptx::EvictNormalPolicy();
  const auto copy_weight = [&](int block, int stage) {
    ptx::ArriveExpect(&barriers.full[stage], kStageBytes);
    ptx::TensorCopy(ring + stage * kStageBytes, &a.weight_map,
                    (share.k_begin + block) * kSkinnyDepth, share.row, &barriers.full[stage],
                    weight_policy);
  };
  const auto copy_x = [&](int block, int stage) {
    ptx::TensorCopy(ring + stage * kStageBytes + kWeightBytes, &a.x_map,
                    (share.k_begin + block) * kSkinnyDepth, share.column, &barriers.full[stage],
                    x_policy);
  };
  const int ahead = min(a.stages, share.k_blocks);
  for (int i = 0; i < ahead; ++i) copy_weight(i, i);
  ptx::WaitForPrevious();
  for (int i = 0; i < ahead; ++i) copy_x(i, i);
  Position at;
  for (int i = ahead; i < share.k_blocks; ++i) {
    ptx::BarrierWait(&barriers.empty[at.stage], at.parity);
    copy_weight(i, at.stage);
    copy_x(i, at.stage);
    at.Next(a.stages);
  }
}

// The sums of one warpgroup: 64 rows of W by kColumns rows of x.
template <int kRows, int kColumns>
__device__ __forceinline__ void MultiplyTiles(const SkinnyArguments& a, int k_blocks,
                                              const uint8_t* ring, Barriers& barriers,
                                              float (&sums)[kColumns / 2]) {
  constexpr uint32_t kWeightBytes = kRows * kTileRowBytes;
  constexpr uint32_t kStageBytes = kWeightBytes + kColumns * kTileRowBytes;
  const int group = threadIdx.x / 128;
  const bool leads = threadIdx.x % 32 == 0;
  Position at;
  int previous = 0;
  for (int i = 0; i < k_blocks; ++i) {
    const uint8_t* stage = ring + at.stage * kStageBytes;
    const uint64_t weight = ptx::SwizzledTile(stage + group * 64 * kTileRowBytes);
    const uint64_t x = ptx::SwizzledTile(stage + kWeightBytes);
    ptx::BarrierWait(&barriers.full[at.stage], at.parity);
    ptx::WgmmaFence();
#pragma unroll
    for (int j = 0; j < kSkinnyDepth / 16; ++j) {
      ptx::Wgmma<kColumns>::Add(sums, weight + 2 * j, x + 2 * j);
    }
    ptx::WgmmaCommit();
    if (i > 0) {  // the block before this one has been read
      ptx::WgmmaWait<1>();
      if (leads) ptx::Arrive(&barriers.empty[previous]);
    }
    previous = at.stage;
    at.Next(a.stages);
  }
  ptx::WgmmaWait<0>();
}

template <int kRows, int kColumns>
__device__ __forceinline__ void StoreSums(const float (&sums)[kColumns / 2], float* tile) {
  const int lane = threadIdx.x % 32;
  const int row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 8 * j + lane % 4 * 2 + i % 2;
      tile[column * (kRows + kPad) + row + i / 2 * 8] = sums[4 * j + i];
    }
  }
}

__device__ __forceinline__ void StoreOutputs(const SkinnyArguments& a, int64_t column, int row,
                                             float4 r) {
  const int64_t at = column * a.n + row;
  const float values[4] = {r.x, r.y, r.z, r.w};
  const bool residual = a.epilogue == LinearEpilogue::kResidual;
  if (a.n % 4 != 0) {
    for (int i = 0; i < 4 && row + i < a.n; ++i) {
      const float old = residual ? __ldcg(static_cast<const float*>(a.y) + at + i) : 0.0f;
      StoreLinear(a.epilogue, a.y, at + i, values[i], old);
    }
    return;
  }
  if (row >= a.n) return;
  if (residual || a.epilogue == LinearEpilogue::kFloat32) {
    auto* y = reinterpret_cast<float4*>(static_cast<float*>(a.y) + at);
    if (residual) {
      const float4 old = __ldcg(y);
      r = {old.x + r.x, old.y + r.y, old.z + r.z, old.w + r.w};
    }
    *y = r;
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

// Adds up the tiles of the cluster's blocks, in their order, and finishes this block's part.
template <int kRows, int kColumns>
__device__ __forceinline__ void Reduce(const SkinnyArguments& a, const Share& share, float* tile,
                                       const float* bias) {
  const int split = gridDim.x;
  const int columns = min(static_cast<int64_t>(kColumns), a.m - share.column);
  const int vectors = columns * (kRows / 4);
  const int begin = vectors * static_cast<int>(blockIdx.x) / split;
  const int end = vectors * (static_cast<int>(blockIdx.x) + 1) / split;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const int row = i % (kRows / 4) * 4;
    const int column = i / (kRows / 4);
    const float* own = tile + column * (kRows + kPad) + row;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    if (split == 1) {
      sum = *reinterpret_cast<const float4*>(own);
    } else {
      float4 parts[kSkinnyMaxSplit];
#pragma unroll
      for (int j = 0; j < kSkinnyMaxSplit; ++j) {
        if (j < split) parts[j] = ptx::LoadFromCluster(ptx::ClusterAddress(own, j));
      }
#pragma unroll
      for (int j = 0; j < kSkinnyMaxSplit; ++j) {
        if (j < split) {
          sum = {sum.x + parts[j].x, sum.y + parts[j].y, sum.z + parts[j].z, sum.w + parts[j].w};
        }
      }
    }
    const float4 b = *reinterpret_cast<const float4*>(bias + row);
    StoreOutputs(a, share.column + column, share.row + row,
                 {sum.x + b.x, sum.y + b.y, sum.z + b.z, sum.w + b.w});
  }
}

template <int kRows, int kColumns>
__global__ __launch_bounds__(kRows * 2 +
                             32) void SkinnyKernel(const __grid_constant__ SkinnyArguments a) {
  extern __shared__ __align__(1024) uint8_t ring[];
  constexpr int kConsumers = kRows * 2;
  constexpr int kStageBytes = (kRows + kColumns) * kTileRowBytes;
  auto& tail = *reinterpret_cast<Tail<kRows>*>(ring + a.stages * kStageBytes);
  Barriers& barriers = tail.barriers;
  float* const bias = tail.bias;
  const Share share = ShareOf(a, kRows, kColumns);
  const bool copies = threadIdx.x == kConsumers;
  if (copies) {
    for (int i = 0; i < a.stages; ++i) {
      ptx::BarrierInit(&barriers.full[i], 1);
      ptx::BarrierInit(&barriers.empty[i], kConsumers / 32);
    }
    ptx::FenceBarrierInit();
  }
  if (threadIdx.x < kRows) {
    const int64_t row = share.row + static_cast<int>(threadIdx.x);
    bias[threadIdx.x] = a.bias != nullptr && row < a.n ? __ldg(a.bias + row) : 0.0f;
  }
  __syncthreads();
  ptx::StartNext();
  float sums[kColumns / 2] = {};
  if (threadIdx.x < kConsumers) {
    MultiplyTiles<kRows, kColumns>(a, share.k_blocks, ring, barriers, sums);
  } else if (copies) {
    CopyTiles<kRows, kColumns>(a, share, ring, barriers);
  }
  ptx::WaitForPrevious();  // for every thread that reads or writes y
  __syncwarp();
  __syncthreads();  // the ring is free
  auto* tile = reinterpret_cast<float*>(ring);
  if (threadIdx.x < kConsumers) StoreSums<kRows, kColumns>(sums, tile);
  if (gridDim.x == 1) {
    __syncthreads();
    Reduce<kRows, kColumns>(a, share, tile, bias);
  } else {
    __syncwarp();
    ptx::ClusterArrive();
    ptx::ClusterWait();
    Reduce<kRows, kColumns>(a, share, tile, bias);
    __syncwarp();
    ptx::ClusterArrive();  // nobody leaves while its sums are read
    ptx::ClusterWait();
  }
}

template <int kRows, int kColumns>
cudaError_t Launch(const SkinnyArguments& a, int split, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(split, static_cast<unsigned>((a.m + kColumns - 1) / kColumns),
                    static_cast<unsigned>((a.n + kRows - 1) / kRows));
  shape.block = dim3(kRows * 2 + 32);
  shape.shared_bytes = SkinnyRingBytes(kRows, kColumns, a.stages) + sizeof(Tail<kRows>);
  shape.cluster = split;
  return LaunchDependent(SkinnyKernel<kRows, kColumns>, shape, stream, a);
}

template <int kRows>
cudaError_t LaunchRows(const SkinnyArguments& a, int split, int columns, cudaStream_t stream) {
  switch (columns) {
    case 8:
      return Launch<kRows, 8>(a, split, stream);
    case 16:
      return Launch<kRows, 16>(a, split, stream);
    case 32:
      return Launch<kRows, 32>(a, split, stream);
    case 64:
      return Launch<kRows, 64>(a, split, stream);
    case 128:
      return Launch<kRows, 128>(a, split, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t LaunchSkinny(const SkinnyArguments& arguments, const SkinnyPlan& plan, int columns,
                         cudaStream_t stream) {
  if (plan.rows == 64) return LaunchRows<64>(arguments, plan.split, columns, stream);
  if (plan.rows == 128) return LaunchRows<128>(arguments, plan.split, columns, stream);
  return cudaErrorInvalidValue;
}

}  // namespace hanlin
