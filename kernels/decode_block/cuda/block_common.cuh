// What the attention block and the MLP block share: the residual stream and its LayerNorm, and
// products of rows in shared memory with a vector in shared memory. 256 threads a block.
//
// The stream is read once a cluster: a block adds up its slice, an eighth, and sends it with the
// slice's mean and variance into the shared memory of all. Were every block to read all of it, 50
// KB a block, that would take half a microsecond more, twice a layer.
#ifndef HANLIN_KERNELS_DECODE_BLOCK_CUDA_BLOCK_COMMON_CUH_
#define HANLIN_KERNELS_DECODE_BLOCK_CUDA_BLOCK_COMMON_CUH_

#include <cuda_bf16.h>

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/decode_block/cuda/decode_block_params.h"

namespace hanlin::decode_block {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHidden = kDecodeBlockHidden;
constexpr int kHeadDim = kDecodeBlockHeadDim;
constexpr int kCluster = kDecodeBlockCluster;
constexpr int kNormThreads = kHidden / 4;             // a float4 each
constexpr int kSliceLanes = kNormThreads / kCluster;  // of the slice that a block adds up
static_assert(kNormThreads <= kThreads && kHidden % 256 == 0);

__device__ __forceinline__ float RoundToBf16(float value) {
  return __bfloat162float(__float2bfloat16(value));
}

__device__ __forceinline__ float4 Load4(const float* values, int index) {
  return reinterpret_cast<const float4*>(values)[index];
}

// Values of the kernel ahead are read past the first-level cache.
__device__ __forceinline__ float4 LoadFresh4(const float* values, int index) {
  return __ldcg(reinterpret_cast<const float4*>(values) + index);
}

__device__ __forceinline__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ void ToFloats(uint4 packed, float (&out)[8]) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

// Sum of 8 products.
__device__ __forceinline__ float Dot8(uint4 weights, const float (&x)[8]) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&weights);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 w = __bfloat1622float2(pairs[i]);
    sum += w.x * x[2 * i] + w.y * x[2 * i + 1];
  }
  return sum;
}

// The constants of a LayerNorm and of the stream's bias, fetched before the wait: element
// threadIdx.x of the norm's arrays seen as float4, and in the first warp the lane's share of the
// bias of the block's slice.
struct NormConstants {
  float4 weight, bias, residual_bias;

  __device__ NormConstants(const float* norm_weight, const float* norm_bias,
                           const ResidualInput& in, int rank) {
    weight = bias = residual_bias = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (threadIdx.x >= kNormThreads) return;
    weight = Load4(norm_weight, threadIdx.x);
    bias = Load4(norm_bias, threadIdx.x);
    if (in.partials != nullptr && threadIdx.x < kSliceLanes) {
      residual_bias = Load4(in.bias, rank * kSliceLanes + threadIdx.x);
    }
  }
};

// Mean of some values and the sum of their squared distances from it. Merged pairwise (Chan et
// al.): one pass, no cancellation.
struct Moments {
  float mean, distances;
};

// The residual stream as the blocks of a cluster send it to each other, a slice each.
struct StreamExchange {
  float x[kHidden];
  Moments moments[kCluster];         // of the slices
  float4 sums[kWarps][kSliceLanes];  // of the block's slice: what each warp added up
  uint64_t there;

  static constexpr uint32_t kBytes = kHidden * sizeof(float) + kCluster * sizeof(Moments);
};

// This lane's elements of the block's slice of the residual stream, in the first warp. The warps
// share the partials: one thread would not have all the loads under way at once, as the compiler
// saves registers.
template <int kPartials>
__device__ __forceinline__ float4 AddUpSlice(const ResidualInput& in, float4 residual_bias,
                                             int rank, StreamExchange* exchange) {
  const int warp = threadIdx.x / 32, lane = min(threadIdx.x % 32, kSliceLanes - 1);
  const int at = rank * kSliceLanes + lane;
  float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (warp == 0) x = LoadFresh4(in.x, at);
  if (in.partials == nullptr) return x;
  float4 sum = LoadFresh4(in.partials + warp * kHidden, at);
  if (warp + kWarps < kPartials) {
    sum = Add(sum, LoadFresh4(in.partials + (warp + kWarps) * kHidden, at));
  }
  static_assert(kPartials > kWarps && kPartials <= 2 * kWarps);
  if (warp > 0 && threadIdx.x % 32 < kSliceLanes) exchange->sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0) return x;
#pragma unroll
  for (int i = 1; i < kWarps; ++i) sum = Add(sum, exchange->sums[i][lane]);
  return Add(x, Add(sum, residual_bias));
}

// By the first warp: sends the block's slice of the residual stream to every block of the cluster;
// the first cluster stores it to x_out.
__device__ __forceinline__ void SendSlice(float4 x, int rank, float* x_out,
                                          StreamExchange* exchange) {
  const int lane = threadIdx.x;
  const int at = rank * kSliceLanes + lane;
  float mean = 0.25f * (x.x + x.y + x.z + x.w);
  const float4 d = make_float4(x.x - mean, x.y - mean, x.z - mean, x.w - mean);
  float distances = d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
  // Within groups of 8 lanes, then the three groups that have values.
#pragma unroll
  for (int offset = 1; offset < 8; offset *= 2) {
    const float other = __shfl_xor_sync(~0u, mean, offset);
    const float distance = other - mean;
    distances += __shfl_xor_sync(~0u, distances, offset) + distance * distance * (2.0f * offset);
    mean = 0.5f * (mean + other);
  }
  Moments slice = {0.0f, 0.0f};
  static_assert(kSliceLanes == 24);
#pragma unroll
  for (int i = 0; i < 3; ++i) slice.mean += __shfl_sync(~0u, mean, 8 * i) * (1.0f / 3.0f);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const float distance = __shfl_sync(~0u, mean, 8 * i) - slice.mean;
    slice.distances += __shfl_sync(~0u, distances, 8 * i) + distance * distance * 32.0f;
  }
#pragma unroll
  for (int target = 0; target < kCluster; ++target) {
    const uint32_t there = ptx::ClusterAddress(&exchange->there, target);
    if (lane < kSliceLanes) {
      ptx::StoreAsync(ptx::ClusterAddress(exchange->x + 4 * at, target), x, there);
    }
  }
  if (lane < kCluster) {
    ptx::StoreAsync(ptx::ClusterAddress(&exchange->moments[rank], lane),
                    make_float2(slice.mean, slice.distances),
                    ptx::ClusterAddress(&exchange->there, lane));
  }
  if (lane < kSliceLanes && blockIdx.x < kCluster) reinterpret_cast<float4*>(x_out)[at] = x;
}

// normed[kHidden] = LayerNorm of the residual stream, rounded to bf16. Lets the next kernel start
// once the stream has arrived: its copies would otherwise stand in the way of the loads, which
// everything waits for.
template <int kPartials>
__device__ __forceinline__ void ResidualNorm(const ResidualInput& in,
                                             const NormConstants& constants, float epsilon,
                                             int rank, float* x_out, __nv_bfloat16* normed,
                                             StreamExchange* exchange) {
  const int t = threadIdx.x;
  const float4 slice = AddUpSlice<kPartials>(in, constants.residual_bias, rank, exchange);
  if (t < 32) SendSlice(slice, rank, x_out, exchange);
  ptx::ClusterBarrierWait(&exchange->there, 0);
  ptx::StartNext();
  float mean = 0.0f, distances = 0.0f;
#pragma unroll
  for (int i = 0; i < kCluster; ++i) mean += exchange->moments[i].mean;
  mean /= kCluster;
#pragma unroll
  for (int i = 0; i < kCluster; ++i) {
    const float distance = exchange->moments[i].mean - mean;
    distances += exchange->moments[i].distances + distance * distance * (4.0f * kSliceLanes);
  }
  const float scale = rsqrtf(distances / kHidden + epsilon);
  if (t < kNormThreads) {
    const float4 x = Load4(exchange->x, t);
    const float4 w = constants.weight, b = constants.bias;
    const __nv_bfloat162 low =
        __floats2bfloat162_rn((x.x - mean) * scale * w.x + b.x, (x.y - mean) * scale * w.y + b.y);
    const __nv_bfloat162 high =
        __floats2bfloat162_rn((x.z - mean) * scale * w.z + b.z, (x.w - mean) * scale * w.w + b.w);
    reinterpret_cast<uint2*>(normed)[t] = {*reinterpret_cast<const uint32_t*>(&low),
                                           *reinterpret_cast<const uint32_t*>(&high)};
  }
  __syncthreads();
}

// out[j] = rows[j] . x for the kRows rows [kRows, kHidden] at `rows`, by one warp; every lane gets
// all of them.
template <int kRows>
__device__ __forceinline__ void WarpProducts(const __nv_bfloat16* rows, const __nv_bfloat16* x,
                                             float (&out)[kRows]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kRows; ++j) out[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < kHidden / 256; ++i) {
    const int column = i * 256 + lane * 8;
    float values[8];
    ToFloats(*reinterpret_cast<const uint4*>(x + column), values);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      out[j] += Dot8(*reinterpret_cast<const uint4*>(rows + j * kHidden + column), values);
    }
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
    for (int j = 0; j < kRows; ++j) out[j] += __shfl_xor_sync(~0u, out[j], offset);
  }
}

}  // namespace hanlin::decode_block

#endif  // HANLIN_KERNELS_DECODE_BLOCK_CUDA_BLOCK_COMMON_CUH_
