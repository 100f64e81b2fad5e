// A thread takes four neighbouring elements a step.
#include <algorithm>

#include "kernels/base/cuda/packed.cuh"
#include "kernels/optim/cuda/adamw_params.h"
#include "kernels/optim/cuda/split_master.cuh"

namespace hanlin {
namespace {

constexpr int kThreads = 256;
constexpr int kUpdateBlocks = 132 * 64;  // many to a multiprocessor, so that the last ones fill it

__device__ __forceinline__ void LoadMaster(const CudaAdamWArrays& a, int64_t at, float (&p)[4]) {
  if (a.parameters != nullptr) {
    LoadPacked(a.parameters + at, p);
    return;
  }
  const ushort4 high = *reinterpret_cast<const ushort4*>(a.high + at);
  const ushort4 low = *reinterpret_cast<const ushort4*>(a.low + at);
  p[0] = JoinMaster(high.x, low.x);
  p[1] = JoinMaster(high.y, low.y);
  p[2] = JoinMaster(high.z, low.z);
  p[3] = JoinMaster(high.w, low.w);
}

__device__ __forceinline__ void StoreMaster(const CudaAdamWArrays& a, int64_t at,
                                            const float (&p)[4]) {
  if (a.parameters != nullptr) {
    StorePacked(a.parameters + at, p);
    return;
  }
  ushort4 high, low;
  SplitMaster(p[0], &high.x, &low.x);
  SplitMaster(p[1], &high.y, &low.y);
  SplitMaster(p[2], &high.z, &low.z);
  SplitMaster(p[3], &high.w, &low.w);
  *reinterpret_cast<ushort4*>(a.high + at) = high;
  *reinterpret_cast<ushort4*>(a.low + at) = low;
}

__global__ void __launch_bounds__(kThreads)
    AdamWKernel(const CudaAdamWArrays a, const AdamWNumbers n) {
  const int64_t stride = int64_t{gridDim.x} * kThreads * 4;
  for (int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4; at < a.count;
       at += stride) {
    float p[4], g[4], m[4], v[4];
    LoadMaster(a, at, p);
    LoadPacked(a.gradients + at, g);
    LoadPacked(a.m + at, m);
    LoadPacked(a.v + at, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      g[i] *= n.gradient_scale;
      p[i] *= n.decay;
      m[i] += n.beta1_rest * (g[i] - m[i]);
      v[i] = n.beta2 * v[i] + n.beta2_rest * g[i] * g[i];
      p[i] -= n.step_size * m[i] / (sqrtf(v[i]) * n.inverse_root + n.epsilon);
    }
    StoreMaster(a, at, p);
    StorePacked(a.m + at, m);
    StorePacked(a.v + at, v);
  }
}

__device__ __forceinline__ double WarpSum(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// The block's sum, to thread 0.
__device__ __forceinline__ double SumOfBlock(double value) {
  __shared__ double shared[kThreads / 32];
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (const double part : shared) sum += part;
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    SquaresKernel(const float* x, int64_t count, double* partials) {
  const int64_t stride = int64_t{gridDim.x} * kThreads * 4;
  double sum = 0;
#pragma unroll 2
  for (int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4; at < count; at += stride) {
    float values[4];
    LoadPacked(x + at, values);
    float squares = 0;
#pragma unroll
    for (const float value : values) squares += value * value;
    sum += squares;
  }
  sum = SumOfBlock(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    AddSquaresKernel(const double* partials, bool add, double* sum) {
  double own = 0;
  for (int i = threadIdx.x; i < kSquareParts; i += kThreads) own += partials[i];
  own = SumOfBlock(own);
  if (threadIdx.x == 0) *sum = add ? *sum + own : own;
}

}  // namespace

cudaError_t LaunchAdamW(const CudaAdamWArrays& arrays, const AdamWNumbers& numbers,
                        cudaStream_t stream) {
  const int64_t blocks = (arrays.count + 4 * kThreads - 1) / (4 * kThreads);
  AdamWKernel<<<static_cast<unsigned>(std::min<int64_t>(blocks, kUpdateBlocks)), kThreads, 0,
                stream>>>(arrays, numbers);
  return cudaGetLastError();
}

cudaError_t LaunchSumOfSquares(const float* x, int64_t count, bool add, double* partials,
                               double* sum, cudaStream_t stream) {
  SquaresKernel<<<kSquareParts, kThreads, 0, stream>>>(x, count, partials);
  AddSquaresKernel<<<1, kThreads, 0, stream>>>(partials, add, sum);
  return cudaGetLastError();
}

}  // namespace hanlin
