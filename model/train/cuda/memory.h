// What a CudaTrainModel takes on the device, before anything is allocated.
#ifndef HANLIN_MODEL_TRAIN_CUDA_MEMORY_H_
#define HANLIN_MODEL_TRAIN_CUDA_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"
#include "model/train/train_model.h"

namespace hanlin {

// Bytes; the driver's context comes on top.
struct CudaTrainMemory {
  uint64_t master = 0;  // with the working copy
  uint64_t gradients = 0;
  uint64_t moments = 0;
  uint64_t activations = 0;  // all that depends on the batch, logits included
  uint64_t logits = 0;       // of one block of rows
  uint64_t fixed = 0;        // copies of vectors, staging, cublasLt's workspace
  uint64_t total() const { return master + gradients + moments + activations + fixed; }
};

// For micro-batches of `sequences` x `length` with a backward pass: exactly what is allocated.
CudaTrainMemory PlanCudaTrainMemory(const TrainModelOptions& options, ComputeType type,
                                    int64_t sequences, int64_t length);

// Of the workspace that the kernels of a pass share: the largest that any of them wants.
size_t TrainWorkspaceBytes(const TrainModelOptions& options, ComputeType type, int64_t sequences,
                           int64_t length);

// Part of the flat array whose moments a rank keeps.
TrainModel::Range OwnedRange(const TrainModelOptions& options, const ParameterLayout& layout);

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CUDA_MEMORY_H_
