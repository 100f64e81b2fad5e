// Parameters of cross_entropy.h, plain data that host and device code share.
#ifndef HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_PARAMS_H_
#define HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"
#include "kernels/loss/cpu/cross_entropy.h"

namespace hanlin {

// All pointers on the device.
struct CudaCrossEntropyParams {
  ComputeType type = ComputeType::kBFloat16;
  int64_t rows = 0;
  int64_t vocabulary_begin = 0;     // first id of this shard
  int64_t vocabulary_size = 0;      // of this shard
  void* logits = nullptr;           // type [rows, vocabulary_size]
  const int32_t* labels = nullptr;  // [rows]
};

cudaError_t LaunchCrossEntropyStats(const CudaCrossEntropyParams& params, int shard, int shards,
                                    CrossEntropyStat* stats, cudaStream_t stream);
cudaError_t LaunchJoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
                            float* loss, cudaStream_t stream);
cudaError_t LaunchCrossEntropyGradient(const CudaCrossEntropyParams& params, const float* log_sum,
                                       const float* weights, cudaStream_t stream);
cudaError_t LaunchCrossEntropy(const CudaCrossEntropyParams& params, const float* weights,
                               float* loss, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_LOSS_CUDA_CROSS_ENTROPY_PARAMS_H_
