// Checks before the launches, and the order of rows.
#include "kernels/embed/cuda/embed_train.h"

#include <limits>
#include <vector>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

absl::Status CheckShape(int64_t rows, int64_t width) {
  if (rows < 1 || rows > std::numeric_limits<int32_t>::max() || width < 8 || width % 8 != 0) {
    return InvalidArgument("embedding of {} rows of {}, want a multiple of 8", rows, width);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CudaEmbedTrain(const CudaEmbedTrainParams& params, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckShape(params.rows, params.width));
  return CudaStatus(LaunchEmbedTrain(params, stream), "launch of the embedding");
}

absl::Status CudaEmbedBackward(const CudaEmbedBackwardParams& params, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckShape(params.rows, params.width));
  return CudaStatus(LaunchEmbedBackward(params, stream), "launch of the embedding's gradient");
}

void OrderRows(std::span<const int32_t> ids, int32_t limit, int32_t* order) {
  std::vector<int32_t> next(limit + 1);
  for (const int32_t id : ids) ++next[id + 1];
  for (int32_t id = 0; id < limit; ++id) next[id + 1] += next[id];
  for (size_t row = 0; row < ids.size(); ++row) order[next[ids[row]]++] = static_cast<int32_t>(row);
}

}  // namespace hanlin
