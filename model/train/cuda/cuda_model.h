// TrainModel on one GPU: the flow of model/train/cpu_model.h over the kernels of kernels/*/cuda,
// everything in one stream.
//
//   x    = dropout(wte[token] + wpe[position])
//   per layer:  x1 = x + dropout(att(LN1(x)) Wo^T + bo);  x' = x1 + dropout(gelu(LN2(x1) Wu^T + bu)
//               Wd^T + bd)           each sum is part of the product before or the norm behind it
//   loss = cross-entropy(LNf(x) wte^T), a block of rows at a time; with masked positions only the
//          rows that count are multiplied
//
// The host prepares and waits beside the device: what the forward pass reads goes up first, the
// labels and orders of rows while it runs, and ForwardBackward returns with the losses, which the
// backward pass need not end for. Gradients are summed over the replicas in a stream of their own.
// Memory is one allocation for the largest micro-batch seen (activations.h).
#ifndef HANLIN_MODEL_TRAIN_CUDA_CUDA_MODEL_H_
#define HANLIN_MODEL_TRAIN_CUDA_CUDA_MODEL_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/pinned.h"
#include "common/cuda/stream.h"
#include "kernels/attention/cuda/causal_attention_params.h"
#include "kernels/gemm/cuda/train_products.h"
#include "model/comm/nccl/cuda_communicator.h"
#include "model/train/cuda/activations.h"
#include "model/train/cuda/parameters.h"
#include "model/train/cuda_train.h"

namespace hanlin {

class CudaTrainModel : public TrainModel {
 public:
  // As MakeCudaTrainModel.
  static absl::StatusOr<std::unique_ptr<CudaTrainModel>> Create(const TrainModelOptions& options,
                                                                const CudaTrainOptions& cuda);

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
    int64_t classified;  // rows: those that count, and masked ones up to a whole step
    CudaBatch arrays;    // on the device
    bool all;            // rows count whatever their weight
    bool reduces;        // see ReduceInNextBackward
    bool whole() const { return classified == tokens; }
  };
  CudaTrainModel(const TrainModelOptions& options, const CudaTrainOptions& cuda);
  absl::Status Allocate();

  int tp_rank() const { return options_.tensor == nullptr ? 0 : options_.tensor->rank(); }
  int tp_size() const { return options_.tensor == nullptr ? 1 : options_.tensor->size(); }
  int dp_rank() const { return options_.data == nullptr ? 0 : options_.data->rank(); }
  int dp_size() const { return options_.data == nullptr ? 1 : options_.data->size(); }
  CudaTrainProducts::Shape ShapeOf(int64_t rows, TensorId weight) const {
    const TensorShape matrix = layout_.Of(weight).shape;
    return {type_, rows, matrix.rows, matrix.cols};
  }
  float* Gradient(TensorId id) const { return gradients_.data() + layout_.Of(id).offset; }
  DropoutParams Dropout(const Pass& pass, float rate, uint32_t site) const;
  // Sums [rows, hidden] of `type` over the tensor-parallel ranks.
  absl::Status AllReduce(int64_t rows, std::byte* data);

  // cuda_model.cc: memory and batch.
  absl::Status Prepare(int64_t sequences, int64_t length, bool keep);
  // The arrays before CudaBatch::rows, for the forward pass.
  absl::StatusOr<Pass> UploadInputs(const TrainBatch& batch, bool training, uint32_t step);
  // The others; of all positions or of those whose loss counts.
  absl::Status UploadTargets(bool all, Pass& pass);
  absl::Status CopyUp(size_t begin, size_t end, const CudaStream& stream);  // of uploads_
  absl::Status StartDownload(const Pass& pass);
  // Waits for the losses alone.
  absl::Status Download(const Pass& pass, std::span<float> losses);

  // layers.cc
  absl::Status Forward(const Pass& pass);
  absl::Status EmbedForward(const Pass& pass, std::byte* x);
  CudaCausalAttentionParams AttentionParams(const Pass& pass, int layer,
                                            const CudaLayerActivations& a) const;
  // up = LN2(x) Wu^T + bu and its GELU.
  absl::Status UpForward(const Pass& pass, int layer, const CudaLayerActivations& a);
  absl::Status GeluForward(const Pass& pass, const CudaLayerActivations& a);
  // A LayerNorm: of which layer, from what, to what.
  struct Norm {
    TensorId weight;
    TensorId bias;
    std::byte* x;
    float* mean;
    float* rstd;
    std::byte* y;
  };
  static Norm Norm1(int layer, const CudaLayerActivations& a);
  static Norm Norm2(int layer, const CudaLayerActivations& a);
  Norm FinalNorm() const;
  // y = LN(x), with a product before it: x = base + dropout(product + bias).
  struct Addition {
    const std::byte* product;
    TensorId bias;
    uint32_t site;
    const std::byte* base;
  };
  absl::Status NormForward(const Pass& pass, const Norm& norm, const Addition* addition);
  // The end of a half layer: base + dropout(x W^T + bias).
  struct HalfLayer {
    const std::byte* x;
    TensorId weight;
    TensorId bias;
    uint32_t site;
    const std::byte* base;
  };
  // norm.x = that sum, norm.y = its norm.
  absl::Status SumAndNorm(const Pass& pass, const HalfLayer& half, const Norm& norm);
  // From LN1(x) to the `next` norm, which is of the layer's output; null: not the MLP's second
  // product nor that norm.
  absl::Status LayerForward(const Pass& pass, int layer, const CudaLayerActivations& a,
                            const Norm* next);
  // y = x W^T (+ b)
  absl::Status Linear(int64_t rows, const std::byte* x, TensorId weight, const void* bias,
                      std::byte* y);

  // backward.cc
  // dx: gradient of the final LayerNorm's input, becomes that of the embedding's output.
  absl::Status Backward(const Pass& pass, std::byte* dx);
  absl::Status MlpBackward(const Pass& pass, int layer, const CudaLayerActivations& a,
                           std::byte* dx);
  absl::Status AttentionBackward(const Pass& pass, int layer, const CudaLayerActivations& a,
                                 std::byte* dx);
  absl::Status EmbedBackward(const Pass& pass, std::byte* dx);
  // A product's sum with the residual drops some of the product in training.
  bool DropsProducts() const { return options_.dropout.hidden > 0; }
  // dx += the norm's backward pass of dy. `bias`: of the product in the sum that the norm is of,
  // null if none; without dropout dx is the product's gradient too, whose sums are the bias's.
  absl::Status NormBackward(const Pass& pass, const Norm& norm, const std::byte* dy,
                            const TensorId* bias, std::byte* dx);
  // The gradient of a product whose sum with the residual has the gradient dx. Without dropout it
  // is dx, and the norm before has added the bias's gradient; else this does.
  absl::StatusOr<const std::byte*> ProductGradient(const Pass& pass, const std::byte* dx,
                                                   uint32_t site, TensorId bias);
  absl::Status AddBiasGradient(const Pass& pass, const std::byte* dy, TensorId bias);
  // Adds dy^T x to the weight's gradient.
  absl::Status WeightBackward(int64_t rows, const std::byte* dy, const std::byte* x,
                              TensorId weight);
  // The gradient of the MLP before GELU, from that of its output, into dup; adds its bias's.
  absl::Status GeluBackward(const Pass& pass, int layer, const CudaLayerActivations& a,
                            const std::byte* dproduct);
  // Both products: the weight's, then dx = dy W; dx may be x.
  absl::Status LinearBackward(int64_t rows, const std::byte* dy, const std::byte* x,
                              TensorId weight, std::byte* dx);

  // classifier.cc: losses of the classified rows, and with `dx` the gradient of the final
  // LayerNorm's input added to it.
  absl::Status Classify(const Pass& pass, std::byte* dx);
  // Classified rows [begin, begin + rows), whose outputs of the final LayerNorm are h; with
  // `backward` these become their gradients.
  absl::Status ClassifyRows(const Pass& pass, int64_t begin, int64_t rows, std::byte* h,
                            bool backward);

  // state.cc
  size_t SlotOf(TensorId id) const { return &layout_.Of(id) - layout_.slots().data(); }
  // Clears what unwritten_ marks: one gradient, or all, so that the array can be read and added to.
  absl::Status SettleGradient(size_t slot) const;
  absl::Status SettleGradients() const;
  // The next stretch's gradient is final on this rank, its sum begins.
  absl::Status ReduceNextStretch();
  absl::Status CheckGroups() const;
  // Puts what `first` holds up to here in front of what comes into `second`.
  absl::Status Join(const CudaStream& first, const CudaStream& second);
  absl::Status CheckRange(TrainState state, int64_t begin, size_t count) const;
  // Of gradients and moments.
  float* StateAt(TrainState state, int64_t begin) const;
  // The parts of ZeRO's ranks to all of them.
  absl::Status GatherParameters();

  const TrainModelOptions options_;
  const CudaTrainOptions cuda_;
  const ModelConfig& config_;
  const ComputeType type_;
  const ParameterLayout layout_;
  CudaDevice device_;
  CudaStream stream_;
  CudaStream sums_stream_;    // of gradients over cuda_.data
  CudaStream copies_stream_;  // targets up and losses down, beside the work
  CudaEvent join_;
  CudaEvent losses_ready_;  // in downloads_; what was uploaded has been read as well
  bool reduce_in_next_ = false;
  int reduced_ = 0;  // stretches in sums_stream_ since the last ReduceGradients
  std::unique_ptr<CudaTrainProducts> products_;
  CudaParameters parameters_;
  DeviceBuffer<float> gradients_;
  // By slot: the gradient is zero, but the array still holds the last step's; the first product
  // overwrites it, which saves clearing it and reading it back.
  mutable std::vector<bool> unwritten_;
  DeviceBuffer<float> moment1_, moment2_;  // of OwnedRange
  DeviceBuffer<double> squares_;           // parts of a sum of squares, then two sums
  PinnedBuffer<double> sums_;              // [2]
  DeviceBuffer<std::byte> memory_;         // of activations_
  CudaActivations activations_;
  PinnedBuffer<std::byte> uploads_;
  PinnedBuffer<float> downloads_;
  // Of cuda_, if the model made them. They end first: sums that wait for a lost rank would hold the
  // memory.
  std::unique_ptr<CudaCommunicator> tensor_group_, data_group_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CUDA_CUDA_MODEL_H_
