// TrainModel on CPU threads: the flow of a pass over the kernels of kernels/*/cpu.
//
//   x   = dropout(wte[token] + wpe[position])                    all-reduce over the vocabulary
//   per layer:  x1 = x + dropout(att(LN1(x)) Wo^T + bo),  x' = x1 + dropout(gelu(LN2(x1) Wu^T + bu)
//               Wd^T + bd)                                        all-reduce before each dropout
//   loss = cross-entropy(LNf(x) wte^T)                            kClassifierRows rows at a time;
//                                                                 logits never exist as a whole
#ifndef HANLIN_MODEL_TRAIN_CPU_MODEL_H_
#define HANLIN_MODEL_TRAIN_CPU_MODEL_H_

#include <cstddef>
#include <vector>

#include "kernels/attention/cpu/causal_attention.h"
#include "kernels/base/aligned.h"
#include "kernels/base/array.h"
#include "kernels/embed/cpu/embed_train.h"
#include "kernels/gemm/cpu/matmul.h"
#include "model/train/background_sum.h"
#include "model/train/cpu_activations.h"
#include "model/train/train_model.h"

namespace hanlin {

class CpuTrainModel : public TrainModel {
 public:
  CpuTrainModel(const TrainModelOptions& options, ThreadPool& pool);

  const TrainModelOptions& options() const override { return options_; }
  const ParameterLayout& layout() const override { return layout_; }
  Range OwnedRange() const override;
  absl::Status Evaluate(const TrainBatch& batch, bool all, std::span<float> losses) override;
  absl::Status Logits(const TrainBatch& batch, std::span<const int64_t> positions,
                      std::span<float> logits) override;
  absl::Status ForwardBackward(const TrainBatch& batch, uint32_t step,
                               std::span<float> losses) override;
  void ReduceInNextBackward() override { reduce_in_next_ = true; }
  absl::Status ReduceGradients() override;
  absl::StatusOr<double> GradientNorm() override;
  absl::Status Update(double learning_rate, float gradient_scale, int64_t step) override;
  void ZeroGradients() override;
  uint64_t ActivationBytes(Recompute recompute, int64_t sequences, int64_t length) const override;
  absl::Status ReadState(TrainState state, int64_t begin, std::span<float> out) const override;
  absl::Status WriteState(TrainState state, int64_t begin, std::span<const float> values) override;

 private:
  // One pass over one batch.
  struct Pass {
    const TrainBatch* batch;
    int64_t tokens;
    bool training;  // dropout, and a backward pass follows
    uint32_t step;
    bool reduces = false;  // see ReduceInNextBackward
  };
  // An output of a linear layer or LayerNorm: its weight and bias.
  const float* Weight(TensorRole role, int layer = 0) const;
  float* Gradient(TensorRole role, int layer = 0);

  int tp_rank() const { return options_.tensor == nullptr ? 0 : options_.tensor->rank(); }
  int tp_size() const { return options_.tensor == nullptr ? 1 : options_.tensor->size(); }
  int dp_rank() const { return options_.data == nullptr ? 0 : options_.data->rank(); }
  int dp_size() const { return options_.data == nullptr ? 1 : options_.data->size(); }
  absl::Status AllReduce(float* data, int64_t count);
  DropoutParams Dropout(const Pass& pass, float rate, uint32_t site) const;

  absl::Status Forward(const Pass& pass);
  EmbedTrainParams EmbedParams(const Pass& pass) const;
  absl::Status EmbedForward(const Pass& pass, float* x);
  absl::Status LayerForward(const Pass& pass, int layer, const LayerActivations& a, float* out);
  void NormForward(const Pass& pass, TensorRole weight, TensorRole bias, int layer, const float* x,
                   float* mean, float* rstd, Array y);
  CausalAttentionParams AttentionParams(const Pass& pass, int layer,
                                        const LayerActivations& a) const;
  absl::Status LayerBackward(const Pass& pass, int layer, float* dx);
  absl::Status MlpBackward(const Pass& pass, int layer, const LayerActivations& a, float* dx);
  absl::Status AttentionBackward(const Pass& pass, int layer, const LayerActivations& a, float* dx);
  void NormBackward(const Pass& pass, TensorRole weight, TensorRole bias, int layer, const float* x,
                    const float* mean, const float* rstd, const float* dy, float* dx);
  // x W^T (+ b) and dy W, but for x, dy and the result.
  MatMulParams ForwardProduct(TensorRole weight, int layer, const float* bias = nullptr) const;
  MatMulParams InputGradientProduct(TensorRole weight, int layer) const;
  // The product with `rows` rows of x or dy, and with what else the caller sets.
  void Multiply(int64_t rows, ConstArray a, Array c, MatMulParams product) const;
  // dW += dy^T x, and dbias += the sum of dy, if there is a bias.
  void AddWeightGradient(int64_t rows, ConstArray dy, ConstArray x, TensorRole weight, int layer,
                         float* dbias = nullptr);

  // cpu_optimizer.cc: the next stretch's gradient is final on this rank; its sum begins.
  absl::Status ReduceNextStretch();

  // cpu_classifier.cc: bytes of the output layer's buffers, whatever the batch.
  int64_t ClassifierBytes() const;
  // Packs the output layer's weight for all blocks of rows.
  void PackClassifier(bool backward);
  // Losses of the chosen positions, and with `dx` the gradient of the final
  // LayerNorm's input.
  absl::Status Classify(const Pass& pass, bool all, std::span<float> losses, float* dx);
  absl::Status ClassifyRows(const Pass& pass, std::span<const int64_t> positions, ConstArray h,
                            float* dh, std::span<float> losses);

  const TrainModelOptions options_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  const ParameterLayout layout_;
  CpuActivations activations_;
  AlignedVector<float> parameters_, gradients_;
  AlignedVector<float> moment1_, moment2_;  // of OwnedRange
  AlignedVector<float> logits_, dselected_;
  AlignedVector<std::byte> selected_, dlogits_;  // operands
  PackedB forward_classifier_, backward_classifier_;
  bool reduce_in_next_ = false;
  int reduced_ = 0;    // stretches handed to sum_ since the last ReduceGradients
  BackgroundSum sum_;  // ends before the array it works on
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CPU_MODEL_H_
