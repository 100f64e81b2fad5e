// Checks before the launches.
#include "kernels/norm/cuda/layer_norm_train.h"

#include <limits>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

absl::Status CheckShape(int64_t rows, int64_t width) {
  if (rows < 1 || rows > std::numeric_limits<int32_t>::max() || width < 8 || width % 8 != 0 ||
      width > kMaxLayerNormWidth) {
    return InvalidArgument("LayerNorm of {} rows of {}, want a multiple of 8 up to {}", rows, width,
                           kMaxLayerNormWidth);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CudaLayerNormTrain(const CudaLayerNormTrainParams& p, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckShape(p.rows, p.width));
  if (p.x == nullptr || p.weight == nullptr || p.bias == nullptr || p.mean == nullptr ||
      p.rstd == nullptr || p.y == nullptr ||
      (p.delta != nullptr && (p.delta_bias == nullptr || p.sum == nullptr))) {
    return InvalidArgument("LayerNorm lacks a pointer");
  }
  return CudaStatus(LaunchLayerNormTrain(p, stream), "launch of LayerNorm");
}

absl::Status CudaLayerNormBackward(const CudaLayerNormBackwardParams& p, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckShape(p.rows, p.width));
  if (p.x == nullptr || p.weight == nullptr || p.mean == nullptr || p.rstd == nullptr ||
      p.dy == nullptr || p.dx == nullptr || p.dweight == nullptr || p.dbias == nullptr ||
      p.workspace == nullptr) {
    return InvalidArgument("the backward pass of LayerNorm lacks a pointer");
  }
  return CudaStatus(LaunchLayerNormBackward(p, stream), "launch of LayerNorm's backward pass");
}

size_t CudaLayerNormBackwardBytes(ComputeType type, int64_t rows, int64_t width) {
  return size_t{3} * LayerNormBackwardBlocks(type, rows, width) * width * sizeof(float);
}

}  // namespace hanlin
