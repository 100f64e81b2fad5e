// What the attention block and the MLP block share: the residual stream and its LayerNorm, and
// products of rows in shared memory with a vector in shared memory. 256 threads a block.
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
constexpr int kNormThreads = kHidden / 4;  // a float4 each
constexpr int kNormWarps = kNormThreads / 32;
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
// threadIdx.x of each array seen as float4.
struct NormConstants {
  float4 weight, bias, residual_bias;

  __device__ NormConstants(const float* norm_weight, const float* norm_bias,
                           const ResidualInput& in) {
    weight = bias = residual_bias = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (threadIdx.x >= kNormThreads) return;
    weight = Load4(norm_weight, threadIdx.x);
    bias = Load4(norm_bias, threadIdx.x);
    if (in.partials != nullptr) residual_bias = Load4(in.bias, threadIdx.x);
  }
};

struct NormScratch {
  float means[kNormWarps];
  float deviations[kNormWarps];  // sums of squared distances from the warp's mean
};

// Thread t's elements [4 t, 4 t + 4) of the residual stream, the partials added in order. All loads
// are issued before the first is used.
template <int kPartials>
__device__ __forceinline__ float4 LoadResidual(const ResidualInput& in, float4 bias, int t) {
  float4 x = LoadFresh4(in.x, t);
  if (in.partials == nullptr) return x;
  float4 partials[kPartials];
#pragma unroll
  for (int i = 0; i < kPartials; ++i) partials[i] = LoadFresh4(in.partials + i * kHidden, t);
  float4 sum = partials[0];
#pragma unroll
  for (int i = 1; i < kPartials; ++i) sum = Add(sum, partials[i]);
  return Add(x, Add(sum, bias));
}

// normed[kHidden] = LayerNorm of the residual stream, rounded to bf16; block 0 stores the stream
// itself to x_out. Lets the next kernel start once the stream has arrived: its copies would
// otherwise stand in the way of these loads, which everything waits for.
template <int kPartials>
__device__ __forceinline__ void ResidualNorm(const ResidualInput& in,
                                             const NormConstants& constants, float epsilon,
                                             float* x_out, float* normed, NormScratch* scratch) {
  const int t = threadIdx.x;
  float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (t < kNormThreads) {
    x = LoadResidual<kPartials>(in, constants.residual_bias, t);
    if (blockIdx.x == 0) reinterpret_cast<float4*>(x_out)[t] = x;
  }
  // Means and squared distances are merged pairwise (Chan et al.): one pass, no cancellation.
  float mean = 0.25f * (x.x + x.y + x.z + x.w);
  const float4 d = make_float4(x.x - mean, x.y - mean, x.z - mean, x.w - mean);
  float deviation = d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float other = __shfl_xor_sync(~0u, mean, offset);
    const float distance = other - mean;
    deviation += __shfl_xor_sync(~0u, deviation, offset) + distance * distance * (2.0f * offset);
    mean = 0.5f * (mean + other);
  }
  if (t % 32 == 0 && t < kNormThreads) {
    scratch->means[t / 32] = mean;
    scratch->deviations[t / 32] = deviation;
  }
  __syncthreads();
  ptx::StartNext();
  mean = deviation = 0.0f;
#pragma unroll
  for (int i = 0; i < kNormWarps; ++i) mean += scratch->means[i];
  mean /= kNormWarps;
#pragma unroll
  for (int i = 0; i < kNormWarps; ++i) {
    const float distance = scratch->means[i] - mean;
    deviation += scratch->deviations[i] + distance * distance * 128.0f;
  }
  const float scale = rsqrtf(deviation / kHidden + epsilon);
  if (t < kNormThreads) {
    const float4 w = constants.weight, b = constants.bias;
    reinterpret_cast<float4*>(normed)[t] =
        make_float4(RoundToBf16((x.x - mean) * scale * w.x + b.x),
                    RoundToBf16((x.y - mean) * scale * w.y + b.y),
                    RoundToBf16((x.z - mean) * scale * w.z + b.z),
                    RoundToBf16((x.w - mean) * scale * w.w + b.w));
  }
  __syncthreads();
}

// out[j] = rows[j] . x for the kRows rows [kRows, kHidden] at `rows`, by one warp; every lane gets
// all of them.
template <int kRows>
__device__ __forceinline__ void WarpProducts(const __nv_bfloat16* rows, const float* x,
                                             float (&out)[kRows]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kRows; ++j) out[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < kHidden / 256; ++i) {
    const int column = i * 256 + lane * 8;
    const float4 low = Load4(x + column, 0), high = Load4(x + column, 1);
    const float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
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
