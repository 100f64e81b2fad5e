// One element a thread; the values come from L2, where the product has just put them.
#include <cuda_bf16.h>

#include "kernels/base/cuda/linear_epilogue.cuh"
#include "kernels/gemm/cuda/gelu_launch.h"

namespace hanlin {
namespace {

template <typename T>
__global__ void GeluErfKernel(T* y, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) y[i] = static_cast<T>(GeluErf(static_cast<float>(y[i])));
}

}  // namespace

cudaError_t LaunchGeluErf(void* y, int64_t count, ComputeType type, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  if (type == ComputeType::kFloat32) {
    GeluErfKernel<<<blocks, kThreads, 0, stream>>>(static_cast<float*>(y), count);
  } else {
    GeluErfKernel<<<blocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(y), count);
  }
  return cudaGetLastError();
}

}  // namespace hanlin
