// Parameters of LayerNorm in training on the device, plain data that host and device code share.
#ifndef HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_PARAMS_H_
#define HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

inline constexpr int kMaxLayerNormWidth = 8192;

// Rows are dense and all pointers aligned to 16 bytes. "type" is `type`.
struct CudaLayerNormTrainParams {
  ComputeType type = ComputeType::kBFloat16;
  int64_t rows = 0;
  int64_t width = 0;
  const void* x = nullptr;  // type [rows, width]
  // With delta: sum = x + dropout(delta + delta_bias), and the norm is that of sum as it is stored.
  const void* delta = nullptr;        // type [rows, width] or null
  const float* delta_bias = nullptr;  // [width], with delta
  DropoutParams dropout;
  void* sum = nullptr;            // type [rows, width], with delta; may be x or delta
  const float* weight = nullptr;  // [width]
  const float* bias = nullptr;    // [width]
  float epsilon = 1e-5f;
  float* mean = nullptr;  // [rows], written
  float* rstd = nullptr;  // [rows], written
  void* y = nullptr;      // type [rows, width]
};

struct CudaLayerNormBackwardParams {
  ComputeType type = ComputeType::kBFloat16;
  int64_t rows = 0;
  int64_t width = 0;
  const void* x = nullptr;        // type [rows, width]
  const float* weight = nullptr;  // [width]
  const float* mean = nullptr;    // [rows]
  const float* rstd = nullptr;    // [rows]
  const void* dy = nullptr;       // type [rows, width]
  void* dx = nullptr;             // type [rows, width], added to
  float* dweight = nullptr;       // [width], added to
  float* dbias = nullptr;         // [width], added to
  float* dx_sums = nullptr;       // [width] or null, added to: the column sums of dx as stored
  void* workspace = nullptr;      // CudaLayerNormBackwardBytes
};

// Blocks of the backward pass; each leaves one partial sum per column and array.
int LayerNormBackwardBlocks(ComputeType type, int64_t rows, int64_t width);

cudaError_t LaunchLayerNormTrain(const CudaLayerNormTrainParams& params, cudaStream_t stream);
cudaError_t LaunchLayerNormBackward(const CudaLayerNormBackwardParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_NORM_CUDA_LAYER_NORM_TRAIN_PARAMS_H_
