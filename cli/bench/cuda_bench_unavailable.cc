// See cuda_bench.h: of a build without CUDA.
#include "cli/bench/cuda_bench.h"

namespace hanlin::cli {
namespace {

absl::Status Missing() {
  return absl::FailedPreconditionError("--device is cuda, but this program was built without CUDA");
}

}  // namespace

absl::StatusOr<Json> BenchCudaDecode(const ForwardBenchOptions&) { return Missing(); }
absl::StatusOr<Json> BenchCudaPrefill(const ForwardBenchOptions&) { return Missing(); }
absl::StatusOr<std::string> CudaDeviceName() { return Missing(); }
absl::StatusOr<uint64_t> CudaMemoryUsed() { return Missing(); }
absl::StatusOr<Json> PlanCudaTraining(const TrainModelOptions&, ComputeType, int64_t, int64_t) {
  return Missing();
}

}  // namespace hanlin::cli
