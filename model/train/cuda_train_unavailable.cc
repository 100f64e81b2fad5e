// See cuda_train.h: of a build without CUDA.
#include "model/train/cuda_train.h"

namespace hanlin {

namespace {

absl::Status Missing() {
  return absl::FailedPreconditionError(
      "the device is cuda, but this program was built without CUDA");
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainModel>> MakeCudaTrainModel(const TrainModelOptions&,
                                                               const CudaTrainOptions&) {
  return Missing();
}
absl::StatusOr<double> MeasureCudaPeak(const CudaTrainOptions&) { return Missing(); }

}  // namespace hanlin
