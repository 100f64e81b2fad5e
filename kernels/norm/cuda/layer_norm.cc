// Checks before the launch.
#include "kernels/norm/cuda/layer_norm.h"

#include <limits>

#include "common/cuda/status.h"

namespace hanlin {

absl::Status CudaLayerNorm(const CudaLayerNormParams& params, cudaStream_t stream) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (params.rows < 0 || params.rows > kMax || params.width < 1 || params.width > kMax) {
    return InvalidArgument("LayerNorm of {} rows of {}", params.rows, params.width);
  }
  if (params.rows == 0) return absl::OkStatus();
  if (params.x == nullptr || params.y == nullptr || params.weight == nullptr ||
      params.bias == nullptr) {
    return InvalidArgument("LayerNorm needs x, y, weight and bias");
  }
  if (params.y == params.x) return InvalidArgument("LayerNorm wants another y than x");
  return CudaStatus(LaunchLayerNorm(params, stream), "launch of LayerNorm");
}

}  // namespace hanlin
