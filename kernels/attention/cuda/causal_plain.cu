// Causal attention for training of any type and head size, without tensor cores. A block serves one
// row of a head (a query; in the backward pass then a key): warp w takes the other side's rows w,
// w + kWarps, ... of those that it meets and lane l the elements l, l + 32, ... of the head; the
// warps' results are merged in their order.
#include <cmath>

#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"

namespace hanlin {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxHeadDim = 128;
constexpr int kElements = kMaxHeadDim / 32;  // of a head, in one lane

__device__ __forceinline__ float Load(const float* value) { return __ldcg(value); }
__device__ __forceinline__ float Load(const BFloat16* value) {
  return LowBFloat16(__ldcg(&value->bits));
}
__device__ __forceinline__ void Store(float value, float* to) { *to = value; }
__device__ __forceinline__ void Store(float value, BFloat16* to) {
  *to = {static_cast<uint16_t>(PackBFloat16(value, 0.0f))};
}

// This lane's elements of a row, zeros behind the head.
template <typename T>
__device__ __forceinline__ void LoadRow(const T* row, int dim, float (&values)[kElements]) {
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    const int d = threadIdx.x % 32 + 32 * j;
    values[j] = d < dim ? Load(row + d) : 0.0f;
  }
}
__device__ __forceinline__ float Dot(const float (&a)[kElements], const float (&b)[kElements]) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kElements; ++j) sum = fmaf(a[j], b[j], sum);
  return WarpSum(sum);
}
__device__ __forceinline__ void Add(float factor, const float (&x)[kElements],
                                    float (&sum)[kElements]) {
#pragma unroll
  for (int j = 0; j < kElements; ++j) sum[j] = fmaf(factor, x[j], sum[j]);
}

// One (sequence, head) of the grid (rows, heads, sequences).
struct Head {
  int64_t first_token;
  int64_t stride;  // elements between the rows of qkv
  int64_t out_stride;
  int64_t offset;  // of the head in a row
  int64_t row;     // of [sequences, heads]

  __device__ explicit Head(const CudaCausalAttentionParams& p)
      : first_token(blockIdx.z * p.length),
        stride(3 * p.heads * p.head_dim),
        out_stride(p.heads * p.head_dim),
        offset(blockIdx.y * p.head_dim),
        row(blockIdx.z * p.heads + blockIdx.y) {}

  // q (0), k (1) or v (2) of a position.
  template <typename T>
  __device__ T* Qkv(T* base, int which, int position) const {
    return base + (first_token + position) * stride + which * out_stride + offset;
  }
  template <typename T>
  __device__ T* Out(T* base, int position) const {
    return base + (first_token + position) * out_stride + offset;
  }
};

// What dropout multiplies a probability by.
__device__ __forceinline__ float DropoutFactor(const CudaCausalAttentionParams& p,
                                               const DropoutLaw& law, const Head& head, int query,
                                               int key) {
  if (p.dropout.rate == 0) return 1.0f;
  const uint32_t row = p.dropout.first_row + static_cast<uint32_t>(head.first_token) + query;
  const uint32_t column = (p.first_head + blockIdx.y) * kHeadColumns + key;
  return DropoutKeeps(law, row, column) ? law.scale : 0.0f;
}

using Partial = float[kWarps][kMaxHeadDim];

// Writes this warp's part of a result.
__device__ __forceinline__ void WritePartial(const float (&values)[kElements], Partial& partial) {
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    partial[threadIdx.x / 32][threadIdx.x % 32 + 32 * j] = values[j];
  }
}

// The sum of all warps' parts of this thread's element.
__device__ __forceinline__ float SumPartials(const Partial& partial) {
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][threadIdx.x];
  return sum;
}

template <typename T>
__global__ __launch_bounds__(kThreads) void ForwardKernel(
    const __grid_constant__ CudaCausalAttentionParams p, const __grid_constant__ DropoutLaw law,
    const T* qkv, T* out) {
  __shared__ float maxima[kWarps], sums[kWarps];
  __shared__ Partial partial;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const Head head(p);
  const int query = blockIdx.x, warp = threadIdx.x / 32, dim = static_cast<int>(p.head_dim);
  const int first =
      p.document_begin == nullptr ? 0 : __ldcg(p.document_begin + head.first_token + query);
  float q[kElements], o[kElements] = {};
  LoadRow(head.Qkv(qkv, 0, query), dim, q);
  float maximum = -INFINITY, sum = 0.0f;
  for (int key = first + warp; key <= query; key += kWarps) {
    float k[kElements], v[kElements];
    LoadRow(head.Qkv(qkv, 1, key), dim, k);
    LoadRow(head.Qkv(qkv, 2, key), dim, v);
    const float score = Dot(q, k) * p.scale;
    const float larger = fmaxf(maximum, score);
    const float factor = expf(maximum - larger), weight = expf(score - larger);
    maximum = larger;
    sum = sum * factor + weight;
#pragma unroll
    for (int j = 0; j < kElements; ++j) o[j] *= factor;
    Add(weight * DropoutFactor(p, law, head, query, key), v, o);
  }
  if (threadIdx.x % 32 == 0) {
    maxima[warp] = maximum;
    sums[warp] = sum;
  }
  WritePartial(o, partial);
  __syncthreads();
  float largest = maxima[0], total = 0.0f, value = 0.0f;
  for (int w = 1; w < kWarps; ++w) largest = fmaxf(largest, maxima[w]);
  for (int w = 0; w < kWarps; ++w) {
    const float factor = expf(maxima[w] - largest);
    total += sums[w] * factor;
    value += partial[w][threadIdx.x] * factor;
  }
  if (threadIdx.x < dim) Store(value / total, head.Out(out, query) + threadIdx.x);
  if (threadIdx.x == 0) p.log_sum[head.row * p.length + query] = largest + logf(total);
}

// A pair of a query and a key that it sees: its probability after dropout, and the derivative of
// its score, without the scale.
struct Pair {
  float weight, dscore;
};
__device__ __forceinline__ Pair Differentiate(float product, float scale, float dweight,
                                              float2 statistics, float dropout_factor) {
  const float probability = expf((product + statistics.x) * scale);
  return {probability * dropout_factor, probability * (dweight * dropout_factor + statistics.y)};
}

template <typename T>
__global__ __launch_bounds__(kThreads) void QueryGradientKernel(
    const __grid_constant__ CudaCausalAttentionParams p, const __grid_constant__ DropoutLaw law,
    const T* qkv, const T* dout, const CausalAttentionState state, T* dqkv) {
  __shared__ Partial partial;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const Head head(p);
  const int query = blockIdx.x, dim = static_cast<int>(p.head_dim);
  const int first =
      p.document_begin == nullptr ? 0 : __ldcg(p.document_begin + head.first_token + query);
  const float2 statistics = __ldcg(state.statistics + head.row * state.padded_length + query);
  float q[kElements], dout_row[kElements], dq[kElements] = {};
  LoadRow(head.Qkv(qkv, 0, query), dim, q);
  LoadRow(head.Out(dout, query), dim, dout_row);
  for (int key = first + threadIdx.x / 32; key <= query; key += kWarps) {
    float k[kElements], v[kElements];
    LoadRow(head.Qkv(qkv, 1, key), dim, k);
    LoadRow(head.Qkv(qkv, 2, key), dim, v);
    const Pair pair = Differentiate(Dot(q, k), p.scale, Dot(dout_row, v), statistics,
                                    DropoutFactor(p, law, head, query, key));
    Add(pair.dscore, k, dq);
  }
  WritePartial(dq, partial);
  __syncthreads();
  if (threadIdx.x < dim) {
    Store(SumPartials(partial) * p.scale, head.Qkv(dqkv, 0, query) + threadIdx.x);
  }
}

template <typename T>
__global__ __launch_bounds__(kThreads) void KeyGradientKernel(
    const __grid_constant__ CudaCausalAttentionParams p, const __grid_constant__ DropoutLaw law,
    const T* qkv, const T* dout, const CausalAttentionState state, T* dqkv) {
  __shared__ Partial k_partial, v_partial;
  ptx::StartNext();
  ptx::WaitForPrevious();
  const Head head(p);
  const int key = blockIdx.x, dim = static_cast<int>(p.head_dim);
  const int end = p.document_begin == nullptr ? static_cast<int>(p.length)
                                              : __ldcg(state.document_end + head.first_token + key);
  const float2* statistics = state.statistics + head.row * state.padded_length;
  float k[kElements], v[kElements], dk[kElements] = {}, dv[kElements] = {};
  LoadRow(head.Qkv(qkv, 1, key), dim, k);
  LoadRow(head.Qkv(qkv, 2, key), dim, v);
  for (int query = key + threadIdx.x / 32; query < end; query += kWarps) {
    float q[kElements], dout_row[kElements];
    LoadRow(head.Qkv(qkv, 0, query), dim, q);
    LoadRow(head.Out(dout, query), dim, dout_row);
    const Pair pair =
        Differentiate(Dot(q, k), p.scale, Dot(dout_row, v), __ldcg(statistics + query),
                      DropoutFactor(p, law, head, query, key));
    Add(pair.weight, dout_row, dv);
    Add(pair.dscore, q, dk);
  }
  WritePartial(dk, k_partial);
  WritePartial(dv, v_partial);
  __syncthreads();
  if (threadIdx.x >= dim) return;
  Store(SumPartials(k_partial) * p.scale, head.Qkv(dqkv, 1, key) + threadIdx.x);
  Store(SumPartials(v_partial), head.Qkv(dqkv, 2, key) + threadIdx.x);
}

LaunchShape ShapeOf(const CudaCausalAttentionParams& p) {
  return {.grid = dim3(p.length, p.heads, p.sequences), .block = dim3(kThreads)};
}

template <typename T>
cudaError_t Forward(const CudaCausalAttentionParams& p, void* out, cudaStream_t stream) {
  return LaunchDependent(ForwardKernel<T>, ShapeOf(p), stream, p, MakeDropoutLaw(p.dropout),
                         static_cast<const T*>(p.qkv), static_cast<T*>(out));
}

template <typename T>
cudaError_t Backward(const CudaCausalAttentionParams& p,
                     const CudaCausalAttentionGradients& gradients,
                     const CausalAttentionState& state, cudaStream_t stream) {
  const DropoutLaw law = MakeDropoutLaw(p.dropout);
  const auto* const qkv = static_cast<const T*>(p.qkv);
  const auto* const dout = static_cast<const T*>(gradients.dout);
  auto* const dqkv = static_cast<T*>(gradients.dqkv);
  const cudaError_t error =
      LaunchDependent(QueryGradientKernel<T>, ShapeOf(p), stream, p, law, qkv, dout, state, dqkv);
  if (error != cudaSuccess) return error;
  return LaunchDependent(KeyGradientKernel<T>, ShapeOf(p), stream, p, law, qkv, dout, state, dqkv);
}

}  // namespace

cudaError_t LaunchPlainCausalAttention(const CudaCausalAttentionParams& p, void* out,
                                       cudaStream_t stream) {
  return p.type == ComputeType::kFloat32 ? Forward<float>(p, out, stream)
                                         : Forward<BFloat16>(p, out, stream);
}

cudaError_t LaunchPlainCausalAttentionBackward(const CudaCausalAttentionParams& p,
                                               const CudaCausalAttentionGradients& gradients,
                                               const CausalAttentionState& state,
                                               cudaStream_t stream) {
  return p.type == ComputeType::kFloat32 ? Backward<float>(p, gradients, state, stream)
                                         : Backward<BFloat16>(p, gradients, state, stream);
}

}  // namespace hanlin
