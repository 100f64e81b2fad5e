// LayerNorm of rows on the device, with the residual step before it and a choice of rows:
//   x[s] += delta[s] + delta_bias                (when delta is given)
//   y[r] = (x[s] - mean) / sqrt(variance + epsilon) * weight + bias,  s = row_index[r] or r
// A block per row; statistics are fp32 in two passes (mean, then squared distances), so a row
// depends on itself alone. Weights are fetched before the dependency wait (programmatic dependent
// launch); neither allocates nor waits; may be captured.
#ifndef HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_H_
#define HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_H_

#include "common/status/status.h"
#include "kernels/norm/cuda/layer_norm_params.h"

namespace hanlin {

// INVALID_ARGUMENT for sizes out of range and missing pointers.
absl::Status CudaLayerNorm(const CudaLayerNormParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_H_
