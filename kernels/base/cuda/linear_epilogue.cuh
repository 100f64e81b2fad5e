// The device side of linear_epilogue.h for kernels that hold fp32 sums of a bf16 product.
#ifndef HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_CUH_
#define HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_CUH_

#include <cuda_bf16.h>

#include "kernels/base/cuda/linear_epilogue.h"

namespace hanlin {

__device__ __forceinline__ float GeluTanh(float r) {
  return 0.5f * r * (1.0f + tanhf(0.79788456f * r * (1.0f + 0.044715f * r * r)));
}

__device__ __forceinline__ float GeluErf(float r) {
  return 0.5f * r * (1.0f + erff(0.70710678f * r));
}

// Stores one output. `r` includes the bias; `residual` is what y held, used by kResidual alone.
__device__ __forceinline__ void StoreLinear(LinearEpilogue epilogue, void* y, int64_t at, float r,
                                            float residual) {
  if (epilogue == LinearEpilogue::kResidual) {
    static_cast<float*>(y)[at] = residual + r;
  } else if (epilogue == LinearEpilogue::kFloat32) {
    static_cast<float*>(y)[at] = r;
  } else {
    if (epilogue == LinearEpilogue::kGeluTanh) r = GeluTanh(r);
    if (epilogue == LinearEpilogue::kGeluErf) r = GeluErf(r);
    static_cast<__nv_bfloat16*>(y)[at] = __float2bfloat16(r);
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_CUH_
