// See cuda_rank.h: of a build without CUDA.
#include "common/status/status.h"
#include "worker/engine/cuda_rank.h"

namespace hanlin {

absl::StatusOr<std::unique_ptr<CudaRank>> CudaRank::Create(const Options&) {
  return absl::FailedPreconditionError(
      "the device is cuda, but this program was built without CUDA");
}

}  // namespace hanlin
