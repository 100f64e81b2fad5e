// What the backward pass of causal attention derives once: each query's statistics, 4 threads a
// head of a token (on the tensor cores the kernel for dQ does it), and where each token's document
// ends.
#include <cmath>

#include "kernels/attention/cuda/causal_statistics.cuh"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

// The products of 16 bytes of each side.
__device__ __forceinline__ float Dot(uint4 a, uint4 b, const float*) {
  return __uint_as_float(a.x) * __uint_as_float(b.x) + __uint_as_float(a.y) * __uint_as_float(b.y) +
         __uint_as_float(a.z) * __uint_as_float(b.z) + __uint_as_float(a.w) * __uint_as_float(b.w);
}
__device__ __forceinline__ float Dot(uint4 a, uint4 b, const BFloat16*) {
  return DotBFloat16(a, b);
}

// Grid: (positions and heads of a sequence, sequences).
template <typename T>
__global__ __launch_bounds__(kThreads) void StatisticsKernel(
    const __grid_constant__ CudaCausalAttentionParams p, const uint4* out, const uint4* dout,
    const CausalAttentionState state) {
  ptx::StartNext();
  ptx::WaitForPrevious();
  const auto heads = static_cast<uint32_t>(p.heads);
  const uint32_t item = (blockIdx.x * kThreads + threadIdx.x) / 4, part = threadIdx.x % 4;
  const uint32_t position = item / heads, head = item % heads;
  // No thread leaves before the shuffles.
  const bool exists = position < p.length;
  float sum = 0.0f;
  if (exists) {
    const int vectors = static_cast<int>(p.head_dim * sizeof(T) / 16);
    const int64_t first = ((blockIdx.y * p.length + position) * p.heads + head) * vectors;
    for (int i = part; i < vectors; i += 4) {
      sum += Dot(__ldcg(out + first + i), __ldcg(dout + first + i), static_cast<const T*>(nullptr));
    }
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (part != 0 || position >= state.padded_length) return;
  const int64_t row = blockIdx.y * p.heads + head;
  const float log_sum = exists ? __ldcg(p.log_sum + row * p.length + position) : INFINITY;
  state.statistics[row * state.padded_length + position] = make_float2(-log_sum / p.scale, -sum);
}

// Grid: (positions, sequences). Documents begin later and later along a sequence.
__global__ __launch_bounds__(kThreads) void DocumentEndKernel(const int32_t* document_begin,
                                                              int length, int32_t* document_end) {
  ptx::StartNext();
  ptx::WaitForPrevious();
  const int position = blockIdx.x * kThreads + threadIdx.x;
  if (position >= length) return;
  const int32_t* begin = document_begin + static_cast<int64_t>(blockIdx.y) * length;
  int low = position + 1, high = length;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (__ldcg(begin + middle) > position) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  document_end[static_cast<int64_t>(blockIdx.y) * length + position] = low;
}

template <typename T>
cudaError_t Launch(const CudaCausalAttentionParams& p,
                   const CudaCausalAttentionGradients& gradients, const CausalAttentionState& state,
                   cudaStream_t stream) {
  const int64_t threads = state.padded_length * p.heads * 4;
  return LaunchDependent(
      StatisticsKernel<T>,
      {.grid = dim3((threads + kThreads - 1) / kThreads, p.sequences), .block = dim3(kThreads)},
      stream, p, static_cast<const uint4*>(gradients.out),
      static_cast<const uint4*>(gradients.dout), state);
}

}  // namespace

cudaError_t LaunchStatistics(const CudaCausalAttentionParams& p,
                             const CudaCausalAttentionGradients& gradients,
                             const CausalAttentionState& state, cudaStream_t stream) {
  return p.type == ComputeType::kFloat32 ? Launch<float>(p, gradients, state, stream)
                                         : Launch<BFloat16>(p, gradients, state, stream);
}

cudaError_t LaunchDocumentEnds(const CudaCausalAttentionParams& p,
                               const CausalAttentionState& state, cudaStream_t stream) {
  if (p.document_begin == nullptr) return cudaSuccess;
  return LaunchDependent(
      DocumentEndKernel,
      {.grid = dim3((p.length + kThreads - 1) / kThreads, p.sequences), .block = dim3(kThreads)},
      stream, p.document_begin, static_cast<int>(p.length), state.document_end);
}

}  // namespace hanlin
