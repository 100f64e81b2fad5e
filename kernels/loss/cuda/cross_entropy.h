// Cross-entropy of a vocabulary shard and its gradient on the device, the three steps of
// kernels/loss/cpu/cross_entropy.h. Deterministic: a row is the work of one block. Neither
// allocates nor waits; may be captured.
#ifndef HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_H_
#define HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_H_

#include "common/status/status.h"
#include "kernels/loss/cuda/cross_entropy_params.h"

namespace hanlin {

// stats [rows][shards]: this shard's entries are written, the others set to zero, so that a sum
// over the ranks gathers them.
absl::Status CudaCrossEntropyStats(const CudaCrossEntropyParams& params, int shard, int shards,
                                   CrossEntropyStat* stats, cudaStream_t stream);

absl::Status CudaJoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
                           float* loss, cudaStream_t stream);

// Logits become their gradient in place.
absl::Status CudaCrossEntropyGradient(const CudaCrossEntropyParams& params, const float* log_sum,
                                      const float* weights, cudaStream_t stream);

// The three steps in one, where one rank has the whole vocabulary (vocabulary_begin is 0): logits
// are fetched from memory once. The bits are those of the three steps.
absl::Status CudaCrossEntropy(const CudaCrossEntropyParams& params, const float* weights,
                              float* loss, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_H_
