// The kernels of layer_norm.h: a block takes a row, and the next one where there are more rows than
// blocks. Up to four vectors of four elements stay in a thread's registers, which covers widths to
// 8192; other rows are read once more per pass. Before the dependency wait: the norm's parameters.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/norm/cuda/layer_norm_params.h"

namespace hanlin {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kMaxVectors = 4;   // of a thread
constexpr int kMaxBlocks = 528;  // about four a multiprocessor: enough to fill memory's pipeline

__device__ __forceinline__ float4 Zero4() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
__device__ __forceinline__ float4 Plus(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float Sum(float4 v) { return (v.x + v.y) + (v.z + v.w); }
__device__ __forceinline__ float SquaredDistance(float4 v, float mean) {
  const float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
  return (a * a + b * b) + (c * c + d * d);
}

__device__ __forceinline__ float4 Load4(const void* base, ComputeType type, int64_t i) {
  if (type == ComputeType::kFloat32) {
    return __ldcg(reinterpret_cast<const float4*>(static_cast<const float*>(base) + i));
  }
  const uint2 bits =
      __ldcg(reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(base) + i));
  return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                     __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
}
__device__ __forceinline__ float Load1(const void* base, ComputeType type, int64_t i) {
  if (type == ComputeType::kFloat32) return __ldcg(static_cast<const float*>(base) + i);
  return __bfloat162float(__ldcg(static_cast<const __nv_bfloat16*>(base) + i));
}

__device__ __forceinline__ void Store4(const CudaLayerNormParams& p, int64_t i, float4 v) {
  if (p.y_type == ComputeType::kFloat32) {
    *reinterpret_cast<float4*>(static_cast<float*>(p.y) + i) = v;
    return;
  }
  const __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y);
  const __nv_bfloat162 high = __floats2bfloat162_rn(v.z, v.w);
  *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(p.y) + i) = {
      *reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)};
}
__device__ __forceinline__ void Store1(const CudaLayerNormParams& p, int64_t i, float v) {
  if (p.y_type == ComputeType::kFloat32) {
    static_cast<float*>(p.y)[i] = v;
  } else {
    static_cast<__nv_bfloat16*>(p.y)[i] = __float2bfloat16(v);
  }
}

// Sum over the block, one barrier; `scratch` must not be in use.
__device__ __forceinline__ float BlockSum(float value, float* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  if (blockDim.x == 32) return value;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int offset = 8; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return __shfl_sync(0xffffffffu, value, 0);
}

// The row of x that row r of y is made of; -1 for a padded row.
__device__ __forceinline__ int64_t SourceOf(const CudaLayerNormParams& p, int64_t r) {
  return p.row_index != nullptr ? __ldcg(p.row_index + r) : r;
}

template <int kVectors>
__global__ __launch_bounds__(kMaxThreads) void NormInRegisters(
    const __grid_constant__ CudaLayerNormParams p) {
  __shared__ float scratch[2][kMaxThreads / 32];
  ptx::StartNext();
  const int vectors = static_cast<int>(p.width / 4);
  float4 weight[kVectors], bias[kVectors], delta_bias[kVectors];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = threadIdx.x + j * blockDim.x;
    delta_bias[j] = Zero4();
    if (i < vectors) {
      weight[j] = __ldg(reinterpret_cast<const float4*>(p.weight) + i);
      bias[j] = __ldg(reinterpret_cast<const float4*>(p.bias) + i);
      if (p.delta_bias != nullptr) {
        delta_bias[j] = __ldg(reinterpret_cast<const float4*>(p.delta_bias) + i);
      }
    }
  }
  ptx::WaitForPrevious();
  const auto load = [&](int64_t source, float4(&x)[kVectors]) {
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = threadIdx.x + j * blockDim.x;
      x[j] = i < vectors && source >= 0
                 ? Load4(p.x, ComputeType::kFloat32, source * p.width + 4 * i)
                 : Zero4();
    }
  };
  int64_t next_source = SourceOf(p, blockIdx.x);
  float4 next_x[kVectors];
  load(next_source, next_x);
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const int64_t source = next_source;
    float4 v[kVectors];
#pragma unroll
    for (int j = 0; j < kVectors; ++j) v[j] = next_x[j];
    if (row + gridDim.x < p.rows) {  // under way while this row is added up
      next_source = SourceOf(p, row + gridDim.x);
      load(next_source, next_x);
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = threadIdx.x + j * blockDim.x;
      if (i < vectors && source >= 0) {
        const int64_t at = source * p.width + 4 * i;
        if (p.delta != nullptr) {
          v[j] = Plus(v[j], Plus(Load4(p.delta, p.delta_type, at), delta_bias[j]));
          *reinterpret_cast<float4*>(p.x + at) = v[j];
        }
        sum += Sum(v[j]);
      }
    }
    const float mean = BlockSum(sum, scratch[0]) / static_cast<float>(p.width);
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      if (static_cast<int>(threadIdx.x + j * blockDim.x) < vectors) {
        squares += SquaredDistance(v[j], mean);
      }
    }
    const float variance = BlockSum(squares, scratch[1]) / static_cast<float>(p.width);
    const float scale = 1.0f / sqrtf(variance + p.epsilon);
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = threadIdx.x + j * blockDim.x;
      if (i >= vectors) continue;
      const float4 w = weight[j], b = bias[j];
      const float4 y =
          make_float4((v[j].x - mean) * scale * w.x + b.x, (v[j].y - mean) * scale * w.y + b.y,
                      (v[j].z - mean) * scale * w.z + b.z, (v[j].w - mean) * scale * w.w + b.w);
      Store4(p, row * p.width + 4 * i, source >= 0 ? y : Zero4());
    }
  }
}

// Any width and alignment.
__global__ __launch_bounds__(kMaxThreads) void NormPlain(
    const __grid_constant__ CudaLayerNormParams p) {
  __shared__ float scratch[2][kMaxThreads / 32];
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int64_t source = SourceOf(p, blockIdx.x);
  const int64_t out = static_cast<int64_t>(blockIdx.x) * p.width;
  if (source < 0) {
    for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) Store1(p, out + i, 0.0f);
    return;
  }
  float* x = p.x + source * p.width;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    float value = __ldcg(x + i);
    if (p.delta != nullptr) {
      const float bias = p.delta_bias != nullptr ? p.delta_bias[i] : 0.0f;
      value += Load1(p.delta, p.delta_type, source * p.width + i) + bias;
      x[i] = value;
    }
    sum += value;
  }
  // A thread rereads only what it wrote itself.
  const float mean = BlockSum(sum, scratch[0]) / static_cast<float>(p.width);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    const float distance = x[i] - mean;
    squares += distance * distance;
  }
  const float variance = BlockSum(squares, scratch[1]) / static_cast<float>(p.width);
  const float scale = 1.0f / sqrtf(variance + p.epsilon);
  for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    Store1(p, out + i, (x[i] - mean) * scale * p.weight[i] + p.bias[i]);
  }
}

bool TakesVectors(const CudaLayerNormParams& p) {
  uintptr_t pointers = 0;
  for (const void* pointer :
       {static_cast<const void*>(p.x), p.delta, static_cast<const void*>(p.delta_bias),
        static_cast<const void*>(p.weight), static_cast<const void*>(p.bias),
        static_cast<const void*>(p.y)}) {
    pointers |= reinterpret_cast<uintptr_t>(pointer);
  }
  return p.width % 4 == 0 && pointers % 16 == 0 && p.width <= 4 * kMaxVectors * kMaxThreads;
}

}  // namespace

cudaError_t LaunchLayerNorm(const CudaLayerNormParams& params, cudaStream_t stream) {
  const bool takes_vectors = TakesVectors(params);
  const int64_t items = takes_vectors ? params.width / 4 : params.width;
  const int least = static_cast<int>((items + kMaxThreads - 1) / kMaxThreads);
  const int each = !takes_vectors || least == 1 ? 1 : least == 2 ? 2 : kMaxVectors;
  const auto kernel = !takes_vectors ? NormPlain
                      : each == 1    ? NormInRegisters<1>
                      : each == 2    ? NormInRegisters<2>
                                     : NormInRegisters<kMaxVectors>;
  const int64_t threads =
      std::min<int64_t>(kMaxThreads, ((items + each - 1) / each + 31) / 32 * 32);
  const int64_t blocks = takes_vectors ? std::min<int64_t>(params.rows, kMaxBlocks) : params.rows;
  return LaunchDependent(
      kernel,
      {.grid = dim3(static_cast<unsigned>(blocks)), .block = dim3(static_cast<unsigned>(threads))},
      stream, params);
}

}  // namespace hanlin
