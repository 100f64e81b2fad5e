// The tied output layer and the loss of cuda_model.h, a block of rows at a time. Where positions
// are masked, the rows that count are brought together first.
#include <algorithm>
#include <cstring>
#include <vector>

#include "common/cuda/status.h"
#include "kernels/loss/cuda/cross_entropy.h"
#include "model/comm/nccl/cuda_communicator.h"
#include "model/forward/cuda/gather.h"
#include "model/train/cuda/cuda_model.h"

namespace hanlin {

absl::Status CudaTrainModel::ClassifyRows(const Pass& pass, int64_t begin, int64_t rows,
                                          std::byte* h, bool backward) {
  const TensorId table = {TensorRole::kWordEmbedding};
  const int64_t vocabulary = layout_.Of(table).shape.rows;
  RETURN_IF_ERROR(Linear(rows, h, table, nullptr, activations_.logits));
  const CudaCrossEntropyParams params = {.type = type_,
                                         .rows = rows,
                                         .vocabulary_begin = tp_rank() * vocabulary,
                                         .vocabulary_size = vocabulary,
                                         .logits = activations_.logits,
                                         .labels = pass.arrays.labels + begin};
  const float* const weights = pass.arrays.weights + begin;
  float* const losses = activations_.losses + begin;
  if (backward && tp_size() == 1) {
    RETURN_IF_ERROR(CudaCrossEntropy(params, weights, losses, stream_.get()));
    return LinearBackward(rows, activations_.logits, h, table, h);
  }
  CrossEntropyStat* const stats = activations_.stats;
  RETURN_IF_ERROR(CudaCrossEntropyStats(params, tp_rank(), tp_size(), stats, stream_.get()));
  if (tp_size() > 1) {
    // Each rank fills its own place, so the sum is a gathering.
    static_assert(sizeof(CrossEntropyStat) == 3 * sizeof(float));
    RETURN_IF_ERROR(
        cuda_.tensor->AllReduceSum(reinterpret_cast<float*>(stats), rows * tp_size() * 3, stream_));
  }
  RETURN_IF_ERROR(
      CudaJoinStats(stats, rows, tp_size(), activations_.log_sum, losses, stream_.get()));
  if (!backward) return absl::OkStatus();
  RETURN_IF_ERROR(CudaCrossEntropyGradient(params, activations_.log_sum, weights, stream_.get()));
  RETURN_IF_ERROR(LinearBackward(rows, activations_.logits, h, table, h));
  return AllReduce(rows, h);
}

absl::Status CudaTrainModel::Classify(const Pass& pass, std::byte* dx) {
  const size_t row_bytes = config_.hidden_size * SizeOf(type_);
  const Norm norm = FinalNorm();
  std::byte* const selected = pass.whole() ? norm.y : activations_.hidden[1];
  const auto gather = [&](const std::byte* from, const int32_t* index, int64_t rows,
                          std::byte* to) {
    if (rows == 0) return absl::OkStatus();
    const GatherRows params = {.rows = static_cast<int32_t>(rows),
                               .index = index,
                               .from = {from},
                               .to = {to},
                               .row_bytes = {row_bytes}};
    return CudaStatus(LaunchGather(params, stream_.get()), "launch of a gathering");
  };
  if (!pass.whole()) {
    RETURN_IF_ERROR(gather(norm.y, pass.arrays.rows, pass.classified, selected));
  }
  for (int64_t begin = 0; begin < pass.classified; begin += CudaActivations::kClassifierRows) {
    const int64_t rows = std::min(CudaActivations::kClassifierRows, pass.classified - begin);
    RETURN_IF_ERROR(
        ClassifyRows(pass, begin, rows, selected + begin * row_bytes, /*backward=*/dx != nullptr));
  }
  if (dx == nullptr) return absl::OkStatus();
  // Rows that do not count have no gradient.
  if (!pass.whole()) RETURN_IF_ERROR(gather(selected, pass.arrays.place, pass.tokens, norm.y));
  const TensorId bias = {TensorRole::kMlpDownBias, config_.num_layers - 1};
  return NormBackward(pass, norm, norm.y, &bias, dx);
}

absl::Status CudaTrainModel::Logits(const TrainBatch& batch, std::span<const int64_t> positions,
                                    std::span<float> logits) {
  ASSIGN_OR_RETURN(const Pass pass, UploadInputs(batch, /*training=*/false, 0));
  RETURN_IF_ERROR(Forward(pass));
  const TensorId table = {TensorRole::kWordEmbedding};
  const int64_t vocabulary = layout_.Of(table).shape.rows;
  const size_t row_bytes = config_.hidden_size * SizeOf(type_);
  std::vector<std::byte> shard(vocabulary * SizeOf(type_));
  // Each rank fills its own columns, so the sum is a gathering.
  std::fill(logits.begin(), logits.end(), 0.0f);
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= pass.tokens) {
      return InvalidArgument("position {} of {} tokens", positions[i], pass.tokens);
    }
    RETURN_IF_ERROR(
        Linear(1, FinalNorm().y + positions[i] * row_bytes, table, nullptr, activations_.logits));
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(shard.data(), activations_.logits, shard.size(),
                                         cudaMemcpyDeviceToHost, stream_.get()));
    RETURN_IF_ERROR(stream_.Synchronize());
    float* const out = logits.data() + i * config_.vocab_size + tp_rank() * vocabulary;
    if (type_ == ComputeType::kFloat32) {
      std::memcpy(out, shard.data(), shard.size());
      continue;
    }
    const auto* const values = reinterpret_cast<const BFloat16*>(shard.data());
    std::transform(values, values + vocabulary, out, [](BFloat16 x) { return ToFloat(x); });
  }
  if (tp_size() == 1) return absl::OkStatus();
  return options_.tensor->AllReduceSum(logits);
}

}  // namespace hanlin
