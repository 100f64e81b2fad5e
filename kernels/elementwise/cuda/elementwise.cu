// A thread takes sixteen bytes of its input a step.
#include <type_traits>

#include "kernels/base/cuda/ptx.cuh"
#include "kernels/elementwise/cuda/column_pass.cuh"
#include "kernels/elementwise/cuda/dropout.cuh"
#include "kernels/elementwise/cuda/elementwise_launch.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

constexpr float kLog2E = 1.44269504f;
constexpr float kRootTwoOverPi = 0.79788456f;
constexpr float kCubic = 0.044715f;

// 1 / (1 + 2^x), a few ulp, without the code that division has for subnormal numbers; 0 and 1 at
// the infinities.
__device__ __forceinline__ float Logistic2(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + ptx::Exp2(x)));
  return result;
}

// The tanh form is x s(x), where s = (1 + tanh(u)) / 2 = 1 / (1 + e^(-2u)) and
// u = kRootTwoOverPi x (1 + kCubic x^2).
__device__ __forceinline__ float HalfTanh(float x, float square) {
  constexpr float kScale = -2.0f * kRootTwoOverPi * kLog2E;
  return Logistic2(x * (kScale + kScale * kCubic * square));
}

template <bool kErf>
__device__ __forceinline__ float Gelu(float x) {
  if constexpr (kErf) return 0.5f * x * (1.0f + erff(0.70710678f * x));
  return x * HalfTanh(x, x * x);
}

template <bool kErf>
__device__ __forceinline__ float GeluSlope(float x) {
  if constexpr (kErf) {
    constexpr float kInverseRootTwoPi = 0.39894228f;
    return 0.5f * (1.0f + erff(0.70710678f * x)) +
           x * kInverseRootTwoPi * ptx::Exp2(-0.5f * kLog2E * x * x);
  }
  // s' = 2 s (1 - s) u'
  const float square = x * x, s = HalfTanh(x, square);
  const float twice_inner = 2.0f * kRootTwoOverPi + 6.0f * kRootTwoOverPi * kCubic * square;
  return s + s * ((1.0f - s) * (x * twice_inner));
}

template <typename T>
__device__ __forceinline__ int64_t First() {
  return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kPacked<T>;
}

template <typename T, bool kErf>
__global__ void __launch_bounds__(kThreads) GeluKernel(const T* x, int64_t count, T* y) {
  const int64_t at = First<T>();
  if (at >= count) return;
  float values[kPacked<T>];
  LoadPacked(x + at, values);
#pragma unroll
  for (float& value : values) value = Gelu<kErf>(value);
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
  const uint4 raw = Pack(values);
  *reinterpret_cast<uint4*>(to) = raw;
  Unpack(raw, values);
}

template <typename T, bool kErf>
struct GeluBackwardPass {
  static constexpr int kInputs = 2, kAhead = 3;
  const T* x;
  const T* dy;
  int64_t width;
  T* dx;
  __device__ __forceinline__ void Load(int64_t row, int64_t column, uint4 (&inputs)[2]) const {
    inputs[0] = LoadRaw(dy + row * width + column);
    inputs[1] = LoadRaw(x + row * width + column);
  }
  __device__ __forceinline__ void Compute(int64_t row, int64_t column, const uint4 (&inputs)[2],
                                          float (&out)[kPacked<T>]) const {
    float at[kPacked<T>];
    Unpack(inputs[0], out);
    Unpack(inputs[1], at);
#pragma unroll
    for (int i = 0; i < kPacked<T>; ++i) out[i] *= GeluSlope<kErf>(at[i]);
    StoreRounded(dx + row * width + column, out);
  }
};

template <typename T>
struct DropoutPass {
  static constexpr int kInputs = 1, kAhead = 3;
  DropoutLaw law;
  uint32_t first_row;
  const T* x;
  int64_t width;
  T* y;
  __device__ __forceinline__ void Load(int64_t row, int64_t column, uint4 (&inputs)[1]) const {
    inputs[0] = LoadRaw(x + row * width + column);
  }
  __device__ __forceinline__ void Compute(int64_t row, int64_t column, const uint4 (&inputs)[1],
                                          float (&out)[kPacked<T>]) const {
    Unpack(inputs[0], out);
    DropPack(law, first_row + static_cast<uint32_t>(row), static_cast<uint32_t>(column), width,
             out);
    StoreRounded(y + row * width + column, out);
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

// Calls launch with a number of the type and the form as a constant.
template <typename Launch>
cudaError_t ChooseForm(ComputeType type, bool erf, const Launch& launch) {
  if (type == ComputeType::kFloat32) {
    return erf ? launch(float(), std::true_type()) : launch(float(), std::false_type());
  }
  return erf ? launch(B(), std::true_type()) : launch(B(), std::false_type());
}

}  // namespace

cudaError_t LaunchGelu(bool erf, ComputeType type, const void* x, int64_t count, void* y,
                       cudaStream_t stream) {
  const auto launch = [&](auto zero, auto form) {
    using T = decltype(zero);
    GeluKernel<T, decltype(form)::value><<<Blocks<T>(count), kThreads, 0, stream>>>(
        static_cast<const T*>(x), count, static_cast<T*>(y));
    return cudaGetLastError();
  };
  return ChooseForm(type, erf, launch);
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
  const auto launch = [&](auto zero, auto form) {
    using T = decltype(zero);
    const GeluBackwardPass<T, decltype(form)::value> pass = {
        static_cast<const T*>(x), static_cast<const T*>(dy), width, static_cast<T*>(dx)};
    return LaunchColumnPass<T>(type, pass, rows, width, partials, stream);
  };
  return ChooseForm(type, erf, launch);
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
