// Checks before the launch.
#include "kernels/embed/cuda/embed.h"

#include <limits>

#include "common/cuda/status.h"

namespace hanlin {

absl::Status CudaEmbed(const CudaEmbedParams& params, cudaStream_t stream) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (params.rows < 0 || params.rows > kMax || params.width < 1 || params.width > kMax) {
    return InvalidArgument("embedding of {} rows of {}", params.rows, params.width);
  }
  if (params.vocabulary_rows < 0 || params.num_positions < 0) {
    return InvalidArgument("embedding of {} ids and {} positions", params.vocabulary_rows,
                           params.num_positions);
  }
  if (params.rows == 0) return absl::OkStatus();
  if (params.ids == nullptr || params.positions == nullptr || params.x == nullptr ||
      (params.table == nullptr && params.vocabulary_rows > 0)) {
    return InvalidArgument("embedding needs ids, positions, table and x");
  }
  return CudaStatus(LaunchEmbed(params, stream), "launch of embedding");
}

}  // namespace hanlin
