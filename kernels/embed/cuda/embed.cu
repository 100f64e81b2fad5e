// The kernel of embed.h: a block per row, four elements a thread where alignment allows.
#include <cuda_bf16.h>

#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/embed/cuda/embed_params.h"

namespace hanlin {
namespace {

constexpr int kMaxThreads = 512;

__device__ __forceinline__ float4 Load4(const float* p) {
  return __ldg(reinterpret_cast<const float4*>(p));
}
__device__ __forceinline__ float4 Load4(const __nv_bfloat16* p) {
  const uint2 bits = __ldg(reinterpret_cast<const uint2*>(p));
  return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                     __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
}
__device__ __forceinline__ float Load1(const float* p) { return __ldg(p); }
__device__ __forceinline__ float Load1(const __nv_bfloat16* p) {
  return __bfloat162float(__ldg(p));
}
__device__ __forceinline__ float4 Plus(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// By the whole grid.
__device__ __forceinline__ void FetchPlan(const PlanFetch& fetch) {
  const auto* from = static_cast<const uint4*>(fetch.from);
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < fetch.bytes / 16;
       i += stride) {
    static_cast<uint4*>(fetch.to)[i] = __ldcv(from + i);
  }
}

template <typename T, bool kVectors>
__global__ __launch_bounds__(kMaxThreads) void EmbedKernel(
    const __grid_constant__ CudaEmbedParams p) {
  __shared__ int32_t told[2];
  ptx::WaitForPrevious();
  const int64_t row = blockIdx.x;
  const int64_t width = p.width;
  int32_t told_id = 0, told_position = 0;
  if (threadIdx.x == 0) {  // the bus, if that is where they lie, is crossed once
    told_id = __ldcv(p.ids + row);
    told_position = __ldcv(p.positions + row);
  }
  if (p.fetch.from != nullptr) FetchPlan(p.fetch);
  if (threadIdx.x == 0) {
    told[0] = told_id;
    told[1] = told_position;
  }
  __syncthreads();
  int64_t id = told[0];
  if (id < 0) id = p.drawn != nullptr ? __ldcg(p.drawn - 1 - id) : -1;
  const int32_t listed = told[1];
  const int64_t position = static_cast<int64_t>(listed) + p.position_offset;
  const int64_t word = id - p.vocabulary_begin;
  const bool real = listed >= 0;
  const T* words = real && word >= 0 && word < p.vocabulary_rows
                       ? static_cast<const T*>(p.table) + word * width
                       : nullptr;
  const bool placed =
      real && p.position_table != nullptr && position >= 0 && position < p.num_positions;
  const float* places = placed ? p.position_table + position * width : nullptr;
  float* x = p.x + row * width;
  if (kVectors) {
    for (int64_t i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
      float4 sum = words != nullptr ? Load4(words + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (places != nullptr) sum = Plus(sum, Load4(places + i));
      *reinterpret_cast<float4*>(x + i) = sum;
    }
  } else {
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float sum = words != nullptr ? Load1(words + i) : 0.0f;
      x[i] = places != nullptr ? sum + Load1(places + i) : sum;
    }
  }
  // Not earlier: the weights that the next kernel reads ahead would come before these few bytes.
  __threadfence();
  ptx::StartNext();
}

template <typename T>
cudaError_t Launch(const CudaEmbedParams& params, cudaStream_t stream) {
  const uintptr_t pointers = reinterpret_cast<uintptr_t>(params.table) |
                             reinterpret_cast<uintptr_t>(params.position_table) |
                             reinterpret_cast<uintptr_t>(params.x);
  const bool vectors = params.width % 4 == 0 && pointers % 16 == 0;
  const int64_t items = vectors ? params.width / 4 : params.width;
  const unsigned threads =
      items >= kMaxThreads ? kMaxThreads : static_cast<unsigned>(items + 31) / 32 * 32;
  return LaunchDependent(vectors ? EmbedKernel<T, true> : EmbedKernel<T, false>,
                         {.grid = dim3(static_cast<unsigned>(params.rows)), .block = dim3(threads)},
                         stream, params);
}

}  // namespace

cudaError_t LaunchEmbed(const CudaEmbedParams& params, cudaStream_t stream) {
  return params.table_type == ComputeType::kFloat32 ? Launch<float>(params, stream)
                                                    : Launch<__nv_bfloat16>(params, stream);
}

}  // namespace hanlin
