// A thread takes sixteen bytes of its input a step.
#include <algorithm>

#include "kernels/elementwise/cuda/column_pass.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"
#include "kernels/elementwise/cuda/elementwise_launch.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

// Exact to a few ulp of 1, and without tanhf's branches.
__device__ __forceinline__ float Tanh(float x) { return 1.0f - 2.0f / (1.0f + __expf(2.0f * x)); }

constexpr float kRootTwoOverPi = 0.79788456f;
constexpr float kCubic = 0.044715f;

__device__ __forceinline__ float Gelu(bool erf, float x) {
  if (erf) return 0.5f * x * (1.0f + erff(0.70710678f * x));
  return 0.5f * x * (1.0f + Tanh(kRootTwoOverPi * x * (1.0f + kCubic * x * x)));
}

__device__ __forceinline__ float GeluSlope(bool erf, float x) {
  if (erf) {
    constexpr float kInverseRootTwoPi = 0.39894228f;
    return 0.5f * (1.0f + erff(0.70710678f * x)) + x * kInverseRootTwoPi * __expf(-0.5f * x * x);
  }
  const float t = Tanh(kRootTwoOverPi * x * (1.0f + kCubic * x * x));
  const float inner = kRootTwoOverPi * (1.0f + 3.0f * kCubic * x * x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

template <typename T>
__device__ __forceinline__ int64_t First() {
  return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kPacked<T>;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) GeluKernel(bool erf, const T* x, int64_t count, T* y) {
  const int64_t at = First<T>();
  if (at >= count) return;
  float values[kPacked<T>];
  LoadPacked(x + at, values);
#pragma unroll
  for (float& value : values) value = Gelu(erf, value);
  StorePacked(y + at, values);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    DropoutKernel(const DropoutLaw law, uint32_t first_row, const T* x, int64_t count,
                  int64_t width, T* y) {
  const int64_t at = First<T>();
  if (at >= count) return;
  const int64_t row = at / width;
  const auto column = static_cast<uint32_t>(at - row * width);
  float values[kPacked<T>];
  LoadPacked(x + at, values);
  DropPack(law, first_row + static_cast<uint32_t>(row), column, width, values);
  StorePacked(y + at, values);
}

// What the sums of columns see is what is stored.
template <typename T>
__device__ __forceinline__ void StoreRounded(T* to, float (&values)[kPacked<T>]) {
#pragma unroll
  for (float& value : values) value = Rounded<T>(value);
  StorePacked(to, values);
}

template <typename T>
struct GeluBackwardPass {
  static constexpr int kInputs = 2, kAhead = 2;
  bool erf;
  const T* x;
  const T* dy;
  int64_t width;
  T* dx;
  __device__ __forceinline__ void Load(int64_t row, int64_t column,
                                       float (&inputs)[2][kPacked<T>]) const {
    LoadPacked(dy + row * width + column, inputs[0]);
    LoadPacked(x + row * width + column, inputs[1]);
  }
  __device__ __forceinline__ void Compute(int64_t row, int64_t column,
                                          float (&inputs)[2][kPacked<T>]) const {
#pragma unroll
    for (int i = 0; i < kPacked<T>; ++i) inputs[0][i] *= GeluSlope(erf, inputs[1][i]);
    StoreRounded(dx + row * width + column, inputs[0]);
  }
};

template <typename T>
struct DropoutPass {
  static constexpr int kInputs = 1, kAhead = 2;
  DropoutLaw law;
  uint32_t first_row;
  const T* x;
  int64_t width;
  T* y;
  __device__ __forceinline__ void Load(int64_t row, int64_t column,
                                       float (&inputs)[1][kPacked<T>]) const {
    LoadPacked(x + row * width + column, inputs[0]);
  }
  __device__ __forceinline__ void Compute(int64_t row, int64_t column,
                                          float (&inputs)[1][kPacked<T>]) const {
    DropPack(law, first_row + static_cast<uint32_t>(row), static_cast<uint32_t>(column), width,
             inputs[0]);
    StoreRounded(y + row * width + column, inputs[0]);
  }
};

__global__ void __launch_bounds__(kThreads)
    WidenKernel(const __nv_bfloat16* x, int64_t count, float* y) {
  const int64_t at = First<__nv_bfloat16>();
  if (at >= count) return;
  float values[8];
  LoadPacked(x + at, values);
  StorePacked(y + at, values);
}

__global__ void __launch_bounds__(kThreads)
    NarrowKernel(const float* x, int64_t count, __nv_bfloat16* y) {
  const int64_t at = First<__nv_bfloat16>();
  if (at >= count) return;
  float values[8];
  LoadPacked(x + at, values);
  StorePacked(y + at, values);
}

template <typename T>
unsigned Blocks(int64_t count) {
  return static_cast<unsigned>((count / kPacked<T> + kThreads - 1) / kThreads);
}

using B = __nv_bfloat16;

}  // namespace

cudaError_t LaunchGelu(bool erf, ComputeType type, const void* x, int64_t count, void* y,
                       cudaStream_t stream) {
  if (type == ComputeType::kFloat32) {
    GeluKernel<<<Blocks<float>(count), kThreads, 0, stream>>>(erf, static_cast<const float*>(x),
                                                              count, static_cast<float*>(y));
  } else {
    GeluKernel<<<Blocks<B>(count), kThreads, 0, stream>>>(erf, static_cast<const B*>(x), count,
                                                          static_cast<B*>(y));
  }
  return cudaGetLastError();
}

cudaError_t LaunchDropout(const DropoutParams& dropout, ComputeType type, const void* x,
                          int64_t rows, int64_t width, void* y, cudaStream_t stream) {
  const DropoutLaw law = MakeDropoutLaw(dropout);
  const int64_t count = rows * width;
  if (type == ComputeType::kFloat32) {
    DropoutKernel<<<Blocks<float>(count), kThreads, 0, stream>>>(
        law, dropout.first_row, static_cast<const float*>(x), count, width, static_cast<float*>(y));
  } else {
    DropoutKernel<<<Blocks<B>(count), kThreads, 0, stream>>>(
        law, dropout.first_row, static_cast<const B*>(x), count, width, static_cast<B*>(y));
  }
  return cudaGetLastError();
}

cudaError_t LaunchGeluBackwardSums(bool erf, ComputeType type, const void* x, const void* dy,
                                   int64_t rows, int64_t width, void* dx, float* partials,
                                   cudaStream_t stream) {
  if (type == ComputeType::kFloat32) {
    const GeluBackwardPass<float> pass = {erf, static_cast<const float*>(x),
                                          static_cast<const float*>(dy), width,
                                          static_cast<float*>(dx)};
    return LaunchColumnPass<float>(type, pass, rows, width, partials, stream);
  }
  const GeluBackwardPass<B> pass = {erf, static_cast<const B*>(x), static_cast<const B*>(dy), width,
                                    static_cast<B*>(dx)};
  return LaunchColumnPass<B>(type, pass, rows, width, partials, stream);
}

cudaError_t LaunchDropoutSums(const DropoutParams& dropout, ComputeType type, const void* x,
                              int64_t rows, int64_t width, void* y, float* partials,
                              cudaStream_t stream) {
  const DropoutLaw law = MakeDropoutLaw(dropout);
  if (type == ComputeType::kFloat32) {
    const DropoutPass<float> pass = {law, dropout.first_row, static_cast<const float*>(x), width,
                                     static_cast<float*>(y)};
    return LaunchColumnPass<float>(type, pass, rows, width, partials, stream);
  }
  const DropoutPass<B> pass = {law, dropout.first_row, static_cast<const B*>(x), width,
                               static_cast<B*>(y)};
  return LaunchColumnPass<B>(type, pass, rows, width, partials, stream);
}

cudaError_t LaunchWiden(const void* x, int64_t count, float* y, cudaStream_t stream) {
  WidenKernel<<<Blocks<B>(count), kThreads, 0, stream>>>(static_cast<const B*>(x), count, y);
  return cudaGetLastError();
}

cudaError_t LaunchNarrow(const float* x, int64_t count, void* y, cudaStream_t stream) {
  NarrowKernel<<<Blocks<B>(count), kThreads, 0, stream>>>(x, count, static_cast<B*>(y));
  return cudaGetLastError();
}

}  // namespace hanlin
