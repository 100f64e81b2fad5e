// Parameters of LayerNorm on the device, plain data that host and device code share.
#ifndef HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_PARAMS_H_
#define HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

struct CudaLayerNormParams {
  int64_t rows = 0;    // of y, 0 to 2^31 - 1; none: nothing happens
  int64_t width = 0;   // any; multiples of 4 with 16-byte aligned pointers are fast
  float* x = nullptr;  // [source rows, width], dense; written only when delta is given
  // [rows] on the device or null: row r of y is made of row row_index[r] of x and delta. A negative
  // index marks a padded row: y gets zeros. No index may occur twice when delta is given.
  const int32_t* row_index = nullptr;
  // x += delta + delta_bias before the norm, e.g. a row-parallel product after its all-reduce.
  const void* delta = nullptr;  // [source rows, width], dense, or null
  ComputeType delta_type = ComputeType::kFloat32;
  const float* delta_bias = nullptr;  // [width] or null; constant
  const float* weight = nullptr;      // [width]; constant
  const float* bias = nullptr;        // [width]; constant
  float epsilon = 1e-5f;
  void* y = nullptr;  // [rows, width], dense; not x
  ComputeType y_type = ComputeType::kBFloat16;
};

cudaError_t LaunchLayerNorm(const CudaLayerNormParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_PARAMS_H_
