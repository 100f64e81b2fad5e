// The tied output layer of cpu_model.h. With the loss it is fused over blocks of rows: only
// positions that count are multiplied, and the logits of one block at a time exist.
#include <algorithm>
#include <cstring>

#include "common/status/status.h"
#include "kernels/loss/cpu/cross_entropy.h"
#include "kernels/norm/cpu/layer_norm_backward.h"
#include "model/train/cpu_model.h"

namespace hanlin {
namespace {

constexpr int64_t kClassifierRows = 512;

}  // namespace

int64_t CpuTrainModel::ClassifierBytes() const {
  const int64_t vocabulary = config_.vocab_size / tp_size();
  const auto operand = static_cast<int64_t>(SizeOf(options_.operands));
  const auto number = static_cast<int64_t>(sizeof(float));
  return kClassifierRows *
             (vocabulary * number + config_.hidden_size * (number + operand) +
              (options_.operands == ComputeType::kBFloat16 ? vocabulary * operand : 0)) +
         2 * vocabulary * config_.hidden_size * operand;
}

void CpuTrainModel::PackClassifier(bool backward) {
  forward_classifier_.Pack(ForwardProduct(TensorRole::kWordEmbedding, 0), pool_);
  if (!backward) return;
  backward_classifier_.Pack(InputGradientProduct(TensorRole::kWordEmbedding, 0), pool_);
}

// h [positions, hidden]; dh likewise or null.
absl::Status CpuTrainModel::ClassifyRows(const Pass& pass, std::span<const int64_t> positions,
                                         ConstArray h, float* dh, std::span<float> losses) {
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t vocabulary = layout_.Of({TensorRole::kWordEmbedding}).shape.rows;
  logits_.resize(kClassifierRows * vocabulary);
  MatMulParams forward = ForwardProduct(TensorRole::kWordEmbedding, 0);
  forward.packed_b = &forward_classifier_;
  Multiply(rows, h, logits_.data(), forward);
  std::vector<int32_t> labels(rows);
  std::vector<float> weights(rows), log_sum(rows), loss(rows);
  for (int64_t i = 0; i < rows; ++i) {
    labels[i] = pass.batch->labels[positions[i]];
    weights[i] = pass.batch->weights[positions[i]];
  }
  const CrossEntropyParams params = {rows, tp_rank() * vocabulary, vocabulary, logits_.data(),
                                     labels.data()};
  std::vector<CrossEntropyStat> stats(rows), joined(rows * tp_size(), CrossEntropyStat{});
  CrossEntropyStats(params, stats.data(), pool_);
  for (int64_t i = 0; i < rows; ++i) joined[i * tp_size() + tp_rank()] = stats[i];
  // Each rank fills its own place, so the sum is a gathering.
  static_assert(sizeof(CrossEntropyStat) == 3 * sizeof(float));
  RETURN_IF_ERROR(AllReduce(reinterpret_cast<float*>(joined.data()), rows * tp_size() * 3));
  JoinStats(joined.data(), rows, tp_size(), log_sum.data(), loss.data());
  for (int64_t i = 0; i < rows; ++i) losses[positions[i]] = loss[i];
  if (dh == nullptr) return absl::OkStatus();
  Array dlogits = logits_.data();
  if (options_.operands == ComputeType::kBFloat16) {
    dlogits_.resize(kClassifierRows * vocabulary * SizeOf(options_.operands));
    dlogits = {dlogits_.data(), options_.operands};
  }
  CrossEntropyGradient(params, log_sum.data(), weights.data(), dlogits, pool_);
  MatMulParams backward = InputGradientProduct(TensorRole::kWordEmbedding, 0);
  backward.packed_b = &backward_classifier_;
  Multiply(rows, dlogits, dh, backward);
  AddWeightGradient(rows, dlogits, h, TensorRole::kWordEmbedding, 0);
  return AllReduce(dh, rows * config_.hidden_size);
}

absl::Status CpuTrainModel::Classify(const Pass& pass, bool all, std::span<float> losses,
                                     float* dx) {
  const int64_t width = config_.hidden_size;
  std::fill(losses.begin(), losses.end(), 0.0f);
  std::vector<int64_t> positions;
  for (int64_t t = 0; t < pass.tokens; ++t) {
    if (all || pass.batch->weights[t] != 0) positions.push_back(t);
  }
  const Array h = {activations_.hidden(0), options_.operands};
  NormForward(pass, TensorRole::kFinalLnWeight, TensorRole::kFinalLnBias, 0, activations_.final_x(),
              activations_.mean(), activations_.rstd(), h);
  float* const dh = activations_.hidden(1);
  if (dx != nullptr) std::fill_n(dh, pass.tokens * width, 0.0f);
  const auto row_bytes = static_cast<int64_t>(width * SizeOf(h.type));
  selected_.resize(kClassifierRows * row_bytes);
  dselected_.resize(kClassifierRows * width);
  PackClassifier(dx != nullptr);
  for (size_t begin = 0; begin < positions.size(); begin += kClassifierRows) {
    const auto rows = std::span<const int64_t>(positions).subspan(
        begin, std::min<size_t>(kClassifierRows, positions.size() - begin));
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(selected_.data() + i * row_bytes, h.From(rows[i] * width).data, row_bytes);
    }
    RETURN_IF_ERROR(ClassifyRows(pass, rows, {selected_.data(), h.type},
                                 dx == nullptr ? nullptr : dselected_.data(), losses));
    for (size_t i = 0; dx != nullptr && i < rows.size(); ++i) {
      std::memcpy(dh + rows[i] * width, dselected_.data() + i * width, width * sizeof(float));
    }
  }
  if (dx == nullptr) return absl::OkStatus();
  NormBackward(pass, TensorRole::kFinalLnWeight, TensorRole::kFinalLnBias, 0,
               activations_.final_x(), activations_.mean(), activations_.rstd(), dh, dx);
  return absl::OkStatus();
}

absl::Status CpuTrainModel::Logits(const TrainBatch& batch, std::span<const int64_t> positions,
                                   std::span<float> logits) {
  RETURN_IF_ERROR(CheckBatch(config_, batch));
  const Pass pass = {&batch, batch.sequences * batch.length, false, 0};
  for (const int64_t position : positions) {
    if (position < 0 || position >= pass.tokens) {
      return InvalidArgument("position {} of {} tokens", position, pass.tokens);
    }
  }
  RETURN_IF_ERROR(Forward(pass));
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t width = config_.hidden_size;
  const int64_t vocabulary = layout_.Of({TensorRole::kWordEmbedding}).shape.rows;
  std::vector<float> x(rows * width), h(rows * width), mean(rows), rstd(rows);
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(x.data() + i * width, activations_.final_x() + positions[i] * width,
                width * sizeof(float));
  }
  LayerNormTrain(
      {rows, width, x.data(), Weight(TensorRole::kFinalLnWeight), Weight(TensorRole::kFinalLnBias),
       config_.layernorm_epsilon, mean.data(), rstd.data(), h.data()},
      pool_);
  std::vector<float> shard(rows * vocabulary);
  Multiply(rows, h.data(), shard.data(), ForwardProduct(TensorRole::kWordEmbedding, 0));
  // Each rank fills its own columns, so the sum is a gathering.
  std::fill(logits.begin(), logits.end(), 0.0f);
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(logits.data() + i * config_.vocab_size + tp_rank() * vocabulary,
                shard.data() + i * vocabulary, vocabulary * sizeof(float));
  }
  return AllReduce(logits.data(), rows * config_.vocab_size);
}

}  // namespace hanlin
