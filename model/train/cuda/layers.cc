// The forward pass of cuda_model.h. The sum at the end of a half layer is taken by its product or
// by the LayerNorm at the beginning of the next.
#include <cmath>

#include "absl/status/status.h"
#include "kernels/attention/cuda/causal_attention.h"
#include "kernels/elementwise/cuda/elementwise.h"
#include "kernels/embed/cuda/embed_train.h"
#include "kernels/norm/cuda/layer_norm_train.h"
#include "model/train/cuda/cuda_model.h"
#include "model/train/dropout_sites.h"

namespace hanlin {

namespace {
using R = TensorRole;
}  // namespace

CudaTrainModel::Norm CudaTrainModel::Norm1(int layer, const CudaLayerActivations& a) {
  return {{R::kLn1Weight, layer}, {R::kLn1Bias, layer}, a.x, a.mean1, a.rstd1, a.ln1};
}
CudaTrainModel::Norm CudaTrainModel::Norm2(int layer, const CudaLayerActivations& a) {
  return {{R::kLn2Weight, layer}, {R::kLn2Bias, layer}, a.x1, a.mean2, a.rstd2, a.ln2};
}
CudaTrainModel::Norm CudaTrainModel::FinalNorm() const {
  return {{R::kFinalLnWeight}, {R::kFinalLnBias}, activations_.final_x(),
          activations_.mean,   activations_.rstd, activations_.hidden[0]};
}

absl::Status CudaTrainModel::NormForward(const Pass& pass, const Norm& norm,
                                         const Addition* addition) {
  CudaLayerNormTrainParams p = {.type = type_, .rows = pass.tokens, .width = config_.hidden_size};
  p.x = norm.x;
  if (addition != nullptr) {
    p.x = addition->base;
    p.delta = addition->product;
    p.delta_bias = parameters_.Vector(addition->bias);
    p.dropout = Dropout(pass, options_.dropout.hidden, addition->site);
    p.sum = norm.x;
  }
  p.weight = parameters_.Vector(norm.weight);
  p.bias = parameters_.Vector(norm.bias);
  p.epsilon = config_.layernorm_epsilon;
  p.mean = norm.mean;
  p.rstd = norm.rstd;
  p.y = norm.y;
  return CudaLayerNormTrain(p, stream_.get());
}

absl::Status CudaTrainModel::Linear(int64_t rows, const std::byte* x, TensorId weight,
                                    const void* bias, std::byte* y) {
  return products_->Forward(ShapeOf(rows, weight), x, parameters_.Matrix(weight), bias, y, stream_);
}

absl::Status CudaTrainModel::EmbedForward(const Pass& pass, std::byte* x) {
  const TensorId table = {R::kWordEmbedding};
  const int64_t rows = layout_.Of(table).shape.rows;
  CudaEmbedTrainParams p = {.type = type_, .rows = pass.tokens, .width = config_.hidden_size};
  p.ids = pass.arrays.tokens;
  p.positions = pass.arrays.positions;
  p.vocabulary_begin = tp_rank() * rows;
  p.vocabulary_size = rows;
  p.table = parameters_.Matrix(table);
  // The position is added once, by rank 0.
  p.position_table = tp_rank() == 0 ? parameters_.Vector({R::kPositionEmbedding}) : nullptr;
  p.out = x;
  RETURN_IF_ERROR(CudaEmbedTrain(p, stream_.get()));
  RETURN_IF_ERROR(AllReduce(pass.tokens, x));
  const DropoutParams dropout = Dropout(pass, options_.dropout.embedding, kEmbeddingSite);
  if (dropout.rate == 0) return absl::OkStatus();
  return CudaDropout(dropout, type_, x, pass.tokens, config_.hidden_size, x, stream_.get());
}

CudaCausalAttentionParams CudaTrainModel::AttentionParams(const Pass& pass, int layer,
                                                          const CudaLayerActivations& a) const {
  CudaCausalAttentionParams p = {.type = type_, .sequences = pass.batch->sequences};
  p.length = pass.batch->length;
  p.heads = config_.num_heads / tp_size();
  p.head_dim = config_.head_dim;
  p.qkv = a.qkv;
  p.document_begin = pass.batch->document_begin.empty() ? nullptr : pass.arrays.document_begin;
  p.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  p.first_head = static_cast<int32_t>(tp_rank() * p.heads);
  p.dropout = Dropout(pass, options_.dropout.attention, AttentionSite(layer));
  p.log_sum = a.log_sum;
  return p;
}

absl::Status CudaTrainModel::GeluForward(const Pass& pass, const CudaLayerActivations& a) {
  const GeluForm form = config_.gelu == GeluKind::kErf ? GeluForm::kErf : GeluForm::kTanh;
  return CudaGelu(form, type_, a.up, pass.tokens * (config_.ffn_size / tp_size()), a.act,
                  stream_.get());
}

absl::Status CudaTrainModel::UpForward(const Pass& pass, int layer, const CudaLayerActivations& a) {
  const TensorId up = {R::kMlpUpWeight, layer};
  const void* const bias = parameters_.Bias({R::kMlpUpBias, layer});
  // The epilogue takes GELU of the sum before it is rounded, which selective recomputation does not
  // have any more: there both passes use the kernel.
  if (config_.gelu != GeluKind::kErf && type_ == ComputeType::kBFloat16 &&
      options_.recompute != Recompute::kSelective) {
    absl::Status fused = products_->ForwardGelu(ShapeOf(pass.tokens, up), a.ln2,
                                                parameters_.Matrix(up), bias, a.up, a.act, stream_);
    if (!absl::IsUnimplemented(fused)) return fused;
  }
  RETURN_IF_ERROR(Linear(pass.tokens, a.ln2, up, bias, a.up));
  return GeluForward(pass, a);
}

// Without dropout and other ranks' parts the product itself adds to the residual, so that the norm
// need not read both.
absl::Status CudaTrainModel::SumAndNorm(const Pass& pass, const HalfLayer& half, const Norm& norm) {
  if (tp_size() == 1 && !DropsProducts()) {
    RETURN_IF_ERROR(products_->ForwardSum(ShapeOf(pass.tokens, half.weight), half.x,
                                          parameters_.Matrix(half.weight),
                                          parameters_.Bias(half.bias), half.base, norm.x, stream_));
    return NormForward(pass, norm, nullptr);
  }
  std::byte* const product = activations_.hidden[1];
  RETURN_IF_ERROR(Linear(pass.tokens, half.x, half.weight, nullptr, product));
  RETURN_IF_ERROR(AllReduce(pass.tokens, product));
  const Addition addition = {product, half.bias, half.site, half.base};
  return NormForward(pass, norm, &addition);
}

absl::Status CudaTrainModel::LayerForward(const Pass& pass, int layer,
                                          const CudaLayerActivations& a, const Norm* next) {
  RETURN_IF_ERROR(Linear(pass.tokens, a.ln1, {R::kQkvWeight, layer},
                         parameters_.Bias({R::kQkvBias, layer}), a.qkv));
  RETURN_IF_ERROR(CudaCausalAttention(AttentionParams(pass, layer, a), a.att, stream_.get()));
  const HalfLayer attention = {
      a.att, {R::kAttnOutWeight, layer}, {R::kAttnOutBias, layer}, AttentionOutSite(layer), a.x};
  RETURN_IF_ERROR(SumAndNorm(pass, attention, Norm2(layer, a)));
  RETURN_IF_ERROR(UpForward(pass, layer, a));
  if (next == nullptr) return absl::OkStatus();
  const HalfLayer mlp = {
      a.act, {R::kMlpDownWeight, layer}, {R::kMlpDownBias, layer}, MlpSite(layer), a.x1};
  return SumAndNorm(pass, mlp, *next);
}

// Leaves the output of the final LayerNorm in hidden[0].
absl::Status CudaTrainModel::Forward(const Pass& pass) {
  const CudaLayerActivations first = activations_.Layer(0);
  RETURN_IF_ERROR(EmbedForward(pass, first.x));
  RETURN_IF_ERROR(NormForward(pass, Norm1(0, first), nullptr));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    const bool last = layer + 1 == config_.num_layers;
    const Norm next = last ? FinalNorm() : Norm1(layer + 1, activations_.Layer(layer + 1));
    RETURN_IF_ERROR(LayerForward(pass, layer, activations_.Layer(layer), &next));
  }
  return absl::OkStatus();
}

}  // namespace hanlin
