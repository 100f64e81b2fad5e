// The layers of cpu_model.h, forward and backward.
#include "model/train/cpu_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/status/status.h"
#include "kernels/elementwise/cpu/elementwise.h"
#include "kernels/norm/cpu/layer_norm_backward.h"
#include "model/train/dropout_sites.h"

namespace hanlin {
namespace {

GeluForm Form(const ModelConfig& config) {
  return config.gelu == GeluKind::kErf ? GeluForm::kErf : GeluForm::kTanh;
}
MatMulEpilogue GeluEpilogue(const ModelConfig& config, bool backward) {
  if (config.gelu == GeluKind::kErf) {
    return backward ? MatMulEpilogue::kGeluErfBackward : MatMulEpilogue::kGeluErf;
  }
  return backward ? MatMulEpilogue::kGeluTanhBackward : MatMulEpilogue::kGeluTanh;
}

}  // namespace

CpuTrainModel::CpuTrainModel(const TrainModelOptions& options, ThreadPool& pool)
    : options_(options),
      config_(options_.config),
      pool_(pool),
      layout_(options_.config, tp_size()),
      activations_(options_.config, tp_size(), options_.operands, options_.recompute),
      parameters_(layout_.size()),
      gradients_(layout_.size()),
      sum_(options_.data) {
  const Range owned = OwnedRange();
  moment1_.resize(owned.end - owned.begin);
  moment2_.resize(owned.end - owned.begin);
}

const float* CpuTrainModel::Weight(TensorRole role, int layer) const {
  return parameters_.data() + layout_.Of({role, layer}).offset;
}
float* CpuTrainModel::Gradient(TensorRole role, int layer) {
  return gradients_.data() + layout_.Of({role, layer}).offset;
}

absl::Status CpuTrainModel::AllReduce(float* data, int64_t count) {
  if (tp_size() == 1) return absl::OkStatus();
  return options_.tensor->AllReduceSum({data, static_cast<size_t>(count)});
}

DropoutParams CpuTrainModel::Dropout(const Pass& pass, float rate, uint32_t site) const {
  return {pass.training ? rate : 0, options_.seed, pass.step, site, pass.batch->first_row};
}

MatMulParams CpuTrainModel::ForwardProduct(TensorRole weight, int layer, const float* bias) const {
  const TensorShape shape = layout_.Of({weight, layer}).shape;
  MatMulParams p = {.n = shape.rows, .k = shape.cols, .a_stride = shape.cols};
  p.b = Weight(weight, layer);
  p.b_stride = shape.cols;
  p.b_transposed = true;
  p.bias = bias;
  p.c_stride = shape.rows;
  p.type = options_.operands;
  return p;
}

MatMulParams CpuTrainModel::InputGradientProduct(TensorRole weight, int layer) const {
  const TensorShape shape = layout_.Of({weight, layer}).shape;
  MatMulParams p = {.n = shape.cols, .k = shape.rows, .a_stride = shape.rows};
  p.b = Weight(weight, layer);
  p.b_stride = shape.cols;
  p.c_stride = shape.cols;
  p.type = options_.operands;
  return p;
}

void CpuTrainModel::Multiply(int64_t rows, ConstArray a, Array c, MatMulParams product) const {
  product.m = rows;
  product.a = a;
  product.c = c;
  MatMul(product, pool_);
}

void CpuTrainModel::AddWeightGradient(int64_t rows, ConstArray dy, ConstArray x, TensorRole weight,
                                      int layer, float* dbias) {
  const TensorShape shape = layout_.Of({weight, layer}).shape;
  MatMulParams w = {.m = shape.rows, .n = shape.cols, .k = rows, .a = dy, .a_stride = shape.rows};
  w.a_transposed = true;
  w.a_sums = dbias;
  w.b = x;
  w.b_stride = shape.cols;
  w.accumulate = true;
  w.c = Gradient(weight, layer);
  w.c_stride = shape.cols;
  w.type = options_.operands;
  MatMul(w, pool_);
}

void CpuTrainModel::NormForward(const Pass& pass, TensorRole weight, TensorRole bias, int layer,
                                const float* x, float* mean, float* rstd, Array y) {
  LayerNormTrain({pass.tokens, config_.hidden_size, x, Weight(weight, layer), Weight(bias, layer),
                  config_.layernorm_epsilon, mean, rstd, y},
                 pool_);
}

void CpuTrainModel::NormBackward(const Pass& pass, TensorRole weight, TensorRole bias, int layer,
                                 const float* x, const float* mean, const float* rstd,
                                 const float* dy, float* dx) {
  LayerNormBackward({pass.tokens, config_.hidden_size, x, Weight(weight, layer), mean, rstd, dy, dx,
                     Gradient(weight, layer), Gradient(bias, layer)},
                    pool_);
}

EmbedTrainParams CpuTrainModel::EmbedParams(const Pass& pass) const {
  const int64_t rows = layout_.Of({TensorRole::kWordEmbedding}).shape.rows;
  return {pass.tokens,
          config_.hidden_size,
          pass.batch->tokens.data(),
          pass.batch->positions.data(),
          tp_rank() * rows,
          rows};
}

absl::Status CpuTrainModel::EmbedForward(const Pass& pass, float* x) {
  // The position is added once, by rank 0.
  const float* const positions = tp_rank() == 0 ? Weight(TensorRole::kPositionEmbedding) : nullptr;
  EmbedTrain(EmbedParams(pass), Weight(TensorRole::kWordEmbedding), positions, x, pool_);
  RETURN_IF_ERROR(AllReduce(x, pass.tokens * config_.hidden_size));
  const DropoutParams dropout = Dropout(pass, options_.dropout.embedding, kEmbeddingSite);
  if (dropout.rate > 0) {
    DropoutAdd({pass.tokens, config_.hidden_size, x, nullptr, nullptr, x, dropout}, pool_);
  }
  return absl::OkStatus();
}

CausalAttentionParams CpuTrainModel::AttentionParams(const Pass& pass, int layer,
                                                     const LayerActivations& a) const {
  CausalAttentionParams p = {.sequences = pass.batch->sequences, .length = pass.batch->length};
  p.heads = config_.num_heads / tp_size();
  p.head_dim = config_.head_dim;
  p.qkv = a.qkv;
  p.document_begin =
      pass.batch->document_begin.empty() ? nullptr : pass.batch->document_begin.data();
  p.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  p.first_head = static_cast<int32_t>(tp_rank() * p.heads);
  p.dropout = Dropout(pass, options_.dropout.attention, AttentionSite(layer));
  p.operands = options_.operands;
  p.log_sum = a.log_sum;
  return p;
}

absl::Status CpuTrainModel::LayerForward(const Pass& pass, int layer, const LayerActivations& a,
                                         float* out) {
  using R = TensorRole;
  const int64_t tokens = pass.tokens, h = config_.hidden_size;
  float* const product = activations_.hidden(0);
  NormForward(pass, R::kLn1Weight, R::kLn1Bias, layer, a.x, a.mean1, a.rstd1, a.ln1);
  Multiply(tokens, a.ln1, a.qkv, ForwardProduct(R::kQkvWeight, layer, Weight(R::kQkvBias, layer)));
  CausalAttention(AttentionParams(pass, layer, a), a.att, pool_);
  Multiply(tokens, a.att, product, ForwardProduct(R::kAttnOutWeight, layer));
  RETURN_IF_ERROR(AllReduce(product, tokens * h));
  DropoutAdd({tokens, h, product, Weight(R::kAttnOutBias, layer), a.x, a.x1,
              Dropout(pass, options_.dropout.hidden, AttentionOutSite(layer))},
             pool_);
  NormForward(pass, R::kLn2Weight, R::kLn2Bias, layer, a.x1, a.mean2, a.rstd2, a.ln2);
  MatMulParams up = ForwardProduct(R::kMlpUpWeight, layer, Weight(R::kMlpUpBias, layer));
  up.epilogue = GeluEpilogue(config_, false);
  up.other = a.act;
  Multiply(tokens, a.ln2, a.up, up);
  Multiply(tokens, a.act, product, ForwardProduct(R::kMlpDownWeight, layer));
  RETURN_IF_ERROR(AllReduce(product, tokens * h));
  DropoutAdd({tokens, h, product, Weight(R::kMlpDownBias, layer), a.x1, out,
              Dropout(pass, options_.dropout.hidden, MlpSite(layer))},
             pool_);
  return absl::OkStatus();
}

absl::Status CpuTrainModel::Forward(const Pass& pass) {
  activations_.Prepare(pass.tokens, pass.training);
  RETURN_IF_ERROR(EmbedForward(pass, activations_.Layer(0).x));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    const bool last = layer + 1 == config_.num_layers;
    float* const out = last ? activations_.final_x() : activations_.Layer(layer + 1).x;
    RETURN_IF_ERROR(LayerForward(pass, layer, activations_.Layer(layer), out));
  }
  return absl::OkStatus();
}

absl::Status CpuTrainModel::MlpBackward(const Pass& pass, int layer, const LayerActivations& a,
                                        float* dx) {
  using R = TensorRole;
  const int64_t tokens = pass.tokens, h = config_.hidden_size;
  const Array dy = activations_.dy();
  float* const dln = activations_.hidden(1);
  DropoutAdd(
      {tokens, h, dx, nullptr, nullptr, dy, Dropout(pass, options_.dropout.hidden, MlpSite(layer))},
      pool_);
  const Array dup = activations_.dup();
  MatMulParams down = InputGradientProduct(R::kMlpDownWeight, layer);
  down.epilogue = GeluEpilogue(config_, true);
  down.other = a.up;
  Multiply(tokens, dy, dup, down);
  AddWeightGradient(tokens, dy, a.act, R::kMlpDownWeight, layer, Gradient(R::kMlpDownBias, layer));
  Multiply(tokens, dup, dln, InputGradientProduct(R::kMlpUpWeight, layer));
  AddWeightGradient(tokens, dup, a.ln2, R::kMlpUpWeight, layer, Gradient(R::kMlpUpBias, layer));
  RETURN_IF_ERROR(AllReduce(dln, tokens * h));
  NormBackward(pass, R::kLn2Weight, R::kLn2Bias, layer, a.x1, a.mean2, a.rstd2, dln, dx);
  return absl::OkStatus();
}

absl::Status CpuTrainModel::AttentionBackward(const Pass& pass, int layer,
                                              const LayerActivations& a, float* dx) {
  using R = TensorRole;
  const int64_t tokens = pass.tokens, h = config_.hidden_size;
  const Array dy = activations_.dy();
  float* const dln = activations_.hidden(1);
  DropoutAdd({tokens, h, dx, nullptr, nullptr, dy,
              Dropout(pass, options_.dropout.hidden, AttentionOutSite(layer))},
             pool_);
  Multiply(tokens, dy, activations_.datt(), InputGradientProduct(R::kAttnOutWeight, layer));
  AddWeightGradient(tokens, dy, a.att, R::kAttnOutWeight, layer, Gradient(R::kAttnOutBias, layer));
  CausalAttentionBackward(AttentionParams(pass, layer, a), a.att, activations_.datt(), dy, pool_);
  Multiply(tokens, dy, dln, InputGradientProduct(R::kQkvWeight, layer));
  AddWeightGradient(tokens, dy, a.ln1, R::kQkvWeight, layer, Gradient(R::kQkvBias, layer));
  RETURN_IF_ERROR(AllReduce(dln, tokens * h));
  NormBackward(pass, R::kLn1Weight, R::kLn1Bias, layer, a.x, a.mean1, a.rstd1, dln, dx);
  return absl::OkStatus();
}

// dx: gradient of the layer's output, becomes that of its input. The residual path is dx itself,
// onto which the LayerNorms' backward passes add.
absl::Status CpuTrainModel::LayerBackward(const Pass& pass, int layer, float* dx) {
  using R = TensorRole;
  const LayerActivations a = activations_.Layer(layer);
  if (options_.recompute == Recompute::kFull) {
    RETURN_IF_ERROR(LayerForward(pass, layer, a, activations_.hidden(1)));
  } else if (options_.recompute == Recompute::kSelective) {
    NormForward(pass, R::kLn1Weight, R::kLn1Bias, layer, a.x, a.mean1, a.rstd1, a.ln1);
    NormForward(pass, R::kLn2Weight, R::kLn2Bias, layer, a.x1, a.mean2, a.rstd2, a.ln2);
    Gelu(Form(config_), a.up, pass.tokens * config_.ffn_size / tp_size(), a.act, pool_);
  }
  RETURN_IF_ERROR(MlpBackward(pass, layer, a, dx));
  return AttentionBackward(pass, layer, a, dx);
}

absl::Status CpuTrainModel::Evaluate(const TrainBatch& batch, bool all, std::span<float> losses) {
  RETURN_IF_ERROR(CheckBatch(config_, batch));
  const Pass pass = {&batch, batch.sequences * batch.length, false, 0};
  RETURN_IF_ERROR(Forward(pass));
  return Classify(pass, all, losses, nullptr);
}

absl::Status CpuTrainModel::ForwardBackward(const TrainBatch& batch, uint32_t step,
                                            std::span<float> losses) {
  RETURN_IF_ERROR(CheckBatch(config_, batch));
  if (reduced_ > 0) return Internal("a micro-batch after the last one, want ReduceGradients");
  const Pass pass = {&batch, batch.sequences * batch.length, true, step,
                     std::exchange(reduce_in_next_, false)};
  RETURN_IF_ERROR(Forward(pass));
  float* const dx = activations_.hidden(2);
  std::fill_n(dx, pass.tokens * config_.hidden_size, 0.0f);
  RETURN_IF_ERROR(Classify(pass, false, losses, dx));
  for (int layer = config_.num_layers - 1; layer >= 0; --layer) {
    RETURN_IF_ERROR(LayerBackward(pass, layer, dx));
    if (pass.reduces) RETURN_IF_ERROR(ReduceNextStretch());
  }
  const DropoutParams dropout = Dropout(pass, options_.dropout.embedding, kEmbeddingSite);
  if (dropout.rate > 0) {
    DropoutAdd({pass.tokens, config_.hidden_size, dx, nullptr, nullptr, dx, dropout}, pool_);
  }
  EmbedBackward(EmbedParams(pass), dx, Gradient(TensorRole::kWordEmbedding),
                Gradient(TensorRole::kPositionEmbedding), pool_);
  return pass.reduces ? ReduceNextStretch() : absl::OkStatus();
}

}  // namespace hanlin
