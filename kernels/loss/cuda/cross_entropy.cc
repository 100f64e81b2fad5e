// Checks before the launches.
#include "kernels/loss/cuda/cross_entropy.h"

#include <limits>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

absl::Status Check(const CudaCrossEntropyParams& p) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (p.rows < 1 || p.rows > kMax || p.vocabulary_size < 1 || p.vocabulary_size > kMax) {
    return InvalidArgument("cross-entropy of {} rows over {} ids", p.rows, p.vocabulary_size);
  }
  if (p.logits == nullptr || p.labels == nullptr) {
    return InvalidArgument("cross-entropy needs logits and labels");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CudaCrossEntropyStats(const CudaCrossEntropyParams& params, int shard, int shards,
                                   CrossEntropyStat* stats, cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  return CudaStatus(LaunchCrossEntropyStats(params, shard, shards, stats, stream),
                    "launch of cross-entropy");
}

absl::Status CudaJoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
                           float* loss, cudaStream_t stream) {
  return CudaStatus(LaunchJoinStats(stats, rows, shards, log_sum, loss, stream),
                    "launch of cross-entropy's sum");
}

absl::Status CudaCrossEntropyGradient(const CudaCrossEntropyParams& params, const float* log_sum,
                                      const float* weights, cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  return CudaStatus(LaunchCrossEntropyGradient(params, log_sum, weights, stream),
                    "launch of cross-entropy's gradient");
}

absl::Status CudaCrossEntropy(const CudaCrossEntropyParams& params, const float* weights,
                              float* loss, cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params));
  if (params.vocabulary_begin != 0) {
    return InvalidArgument("cross-entropy in one step of a shard from id {}",
                           params.vocabulary_begin);
  }
  return CudaStatus(LaunchCrossEntropy(params, weights, loss, stream), "launch of cross-entropy");
}

}  // namespace hanlin
