// Embedding for training on the device, forward and backward: the law of
// kernels/embed/cpu/embed_train.h. The rows of an id are added by one block in an order that
// depends on the ids alone, so the gradient is deterministic. Neither allocates nor waits; may be
// captured.
#ifndef HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_H_
#define HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_H_

#include <span>

#include "common/status/status.h"
#include "kernels/embed/cuda/embed_train_params.h"

namespace hanlin {

absl::Status CudaEmbedTrain(const CudaEmbedTrainParams& params, cudaStream_t stream);
absl::Status CudaEmbedBackward(const CudaEmbedBackwardParams& params, cudaStream_t stream);

// The order that CudaEmbedBackward wants, on the host; ids lie in [0, limit).
void OrderRows(std::span<const int32_t> ids, int32_t limit, int32_t* order);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CUDA_EMBED_TRAIN_H_
