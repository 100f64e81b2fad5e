// TrainModel on a GPU, without showing CUDA: a build without it has the same functions, which say
// that it is missing.
//
// bf16: activations, gradients of activations and working weights are bf16, sums, the gradients of
// weights, moments and master weights fp32; the working copy is the master's rounding, kept with
// what is missing to it, so a parameter takes 16 bytes. fp32: the arithmetic of the CPU model.
#ifndef HANLIN_MODEL_TRAIN_CUDA_TRAIN_H_
#define HANLIN_MODEL_TRAIN_CUDA_TRAIN_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/base/types.h"
#include "model/train/train_model.h"

namespace hanlin {

class CudaCommunicator;

struct CudaTrainOptions {
  ComputeType type = ComputeType::kBFloat16;
  int device = 0;  // ordinal
  // How long a rank may keep the others waiting.
  absl::Duration timeout = absl::Seconds(60);
  // The same groups as TrainModelOptions::tensor and data, through which sums on the device go; not
  // owned. Null: where those have more than one rank the model makes them, over NCCL.
  CudaCommunicator* tensor = nullptr;
  CudaCommunicator* data = nullptr;
};

// Called by all ranks together. FAILED_PRECONDITION: no usable device, or a library is missing.
// RESOURCE_EXHAUSTED: the flat arrays do not fit; activations are allocated with the first batch of
// their size.
absl::StatusOr<std::unique_ptr<TrainModel>> MakeCudaTrainModel(const TrainModelOptions& options,
                                                               const CudaTrainOptions& cuda);

// Operations a second of a large product on that device, what MFU is a share of. Waits.
absl::StatusOr<double> MeasureCudaPeak(const CudaTrainOptions& cuda);

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CUDA_TRAIN_H_
