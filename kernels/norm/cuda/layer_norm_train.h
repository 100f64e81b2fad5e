// LayerNorm as training needs it on the device, the law of kernels/norm/cpu/layer_norm_backward.h:
// forward with the residual addition and dropout before it, backward onto the gradient of the
// residual path. Deterministic: a row is the work of one block, and column sums are added in a
// fixed order. Neither allocates nor waits; may be captured.
#ifndef HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_H_
#define HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_H_

#include <cstddef>

#include "common/status/status.h"
#include "kernels/norm/cuda/layer_norm_train_params.h"

namespace hanlin {

// INVALID_ARGUMENT: a width that is not a multiple of 8 or above kMaxLayerNormWidth, missing
// pointers.
absl::Status CudaLayerNormTrain(const CudaLayerNormTrainParams& params, cudaStream_t stream);
absl::Status CudaLayerNormBackward(const CudaLayerNormBackwardParams& params, cudaStream_t stream);

size_t CudaLayerNormBackwardBytes(ComputeType type, int64_t rows, int64_t width);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_H_
