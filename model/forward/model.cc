// See model.h. With one rank the residual add and the bias ride in the epilogue of the matrix
// product; with more they follow the all-reduce.
#include "model/forward/model.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/status/status.h"
#include "kernels/embed/cpu/embed.h"
#include "kernels/gemm/cpu/linear.h"
#include "kernels/norm/cpu/layer_norm.h"

namespace hanlin {
namespace {

// Rows of logits computed, gathered and reported as progress at a time.
constexpr int64_t kLogitRowsPerChunk = 32;

absl::Status CheckOptions(const GptModel::Options& options) {
  const ModelConfig& config = options.checkpoint->config();
  if (config.head_dim % 8 != 0 || config.head_dim > kMaxHeadDim) {
    return FailedPrecondition("head size {}, want a multiple of 8 up to {}", config.head_dim,
                              kMaxHeadDim);
  }
  if (options.num_kv_blocks < 1 || options.max_tokens_per_pass < 1) {
    return InvalidArgument("{} KV blocks and {} tokens a pass, want at least 1 of each",
                           options.num_kv_blocks, options.max_tokens_per_pass);
  }
  return absl::OkStatus();
}

// Hands out parts of an arena; one status for all of them.
class Allocator {
 public:
  explicit Allocator(Arena* arena) : arena_(*arena) {}

  template <typename T>
  void Take(uint64_t bytes, T** out) {
    if (!status_.ok()) return;
    const auto memory = arena_.Allocate(bytes);
    if (memory.ok()) *out = reinterpret_cast<T*>(*memory);
    status_ = memory.status();
  }
  const absl::Status& status() const { return status_; }

 private:
  Arena& arena_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GptModel>> GptModel::Create(const Options& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<GptModel> model(new GptModel(options, options.checkpoint->config()));
  const WeightsOptions weights_options = {.type = options.compute_type,
                                          .tp_rank = model->communicator_->rank(),
                                          .tp_size = model->tp_size(),
                                          .progress = options.progress};
  ASSIGN_OR_RETURN(model->weights_,
                   LoadWeights(*options.checkpoint, weights_options, options.pool));
  RETURN_IF_ERROR(model->Allocate());
  return model;
}

GptModel::GptModel(const Options& options, const ModelConfig& config)
    : config_(config),
      type_(options.compute_type),
      limits_{.vocab_size = config.vocab_size,
              .max_positions = config.max_positions,
              .num_blocks = options.num_kv_blocks,
              .block_tokens = kKvBlockTokens},
      max_tokens_per_pass_(options.max_tokens_per_pass),
      pool_(*options.pool),
      heartbeat_(options.heartbeat),
      own_communicator_(options.communicator == nullptr ? MakeSingleRankCommunicator() : nullptr),
      communicator_(options.communicator == nullptr ? own_communicator_.get()
                                                    : options.communicator),
      local_width_(int64_t{config.hidden_size} / communicator_->size()) {}

uint64_t GptModel::KvBlockBytes(const ModelConfig& config, ComputeType type, int tp_size) {
  return hanlin::KvBlockBytes(type, config.num_heads / tp_size, config.head_dim) *
         config.num_layers;
}

absl::Status GptModel::Allocate() {
  const uint64_t kv_bytes = KvBlockBytes(config_, type_, tp_size()) * limits_.num_blocks;
  ASSIGN_OR_RETURN(kv_arena_, Arena::Create(Arena::RoundUp(kv_bytes)));
  ASSIGN_OR_RETURN(kv_, kv_arena_.Allocate(kv_bytes));

  const uint64_t tokens = max_tokens_per_pass_;
  const uint64_t hidden = config_.hidden_size;
  const uint64_t typed = SizeOf(type_);
  const uint64_t x_bytes = tokens * hidden * sizeof(float);
  const uint64_t normed_bytes = tokens * hidden * typed;
  const uint64_t qkv_bytes = 3 * tokens * local_width_ * sizeof(float);
  const uint64_t attention_bytes = tokens * local_width_ * typed;
  const uint64_t mlp_bytes = tokens * (config_.ffn_size / tp_size()) * typed;
  const uint64_t shard_bytes =
      kLogitRowsPerChunk * (config_.vocab_size / tp_size()) * sizeof(float);
  uint64_t total = 0;
  for (const uint64_t bytes :
       {x_bytes, normed_bytes, qkv_bytes, attention_bytes, mlp_bytes, x_bytes, shard_bytes}) {
    total += Arena::RoundUp(bytes);
  }
  ASSIGN_OR_RETURN(activations_.arena, Arena::Create(total));
  Allocator allocator(&activations_.arena);
  allocator.Take(x_bytes, &activations_.x);
  allocator.Take(normed_bytes, &activations_.normed);
  allocator.Take(qkv_bytes, &activations_.qkv);
  allocator.Take(attention_bytes, &activations_.attention);
  allocator.Take(mlp_bytes, &activations_.mlp);
  allocator.Take(x_bytes, &activations_.delta);
  allocator.Take(shard_bytes, &activations_.logits_shard);
  return allocator.status();
}

absl::Status GptModel::Check(const StepBatch& batch, size_t logits) const {
  RETURN_IF_ERROR(CheckStep(batch, limits_));
  const bool leads = communicator_->rank() == 0;
  const size_t want = leads ? batch.logit_rows.size() * config_.vocab_size : 0;
  if (logits != want) return InvalidArgument("room for {} logits, want {}", logits, want);
  return absl::OkStatus();
}

absl::Status GptModel::Run(const StepBatch& batch, std::span<float> logits) {
  RETURN_IF_ERROR(Check(batch, logits.size()));
  for (const Pass& pass : CutIntoPasses(batch, max_tokens_per_pass_)) {
    RETURN_IF_ERROR(RunPass(pass));
    RETURN_IF_ERROR(Logits(std::ssize(pass.logit_rows), logits.data()));
    if (!logits.empty()) logits = logits.subspan(pass.logit_rows.size() * config_.vocab_size);
  }
  return absl::OkStatus();
}

absl::Status GptModel::RunPass(const Pass& pass) {
  RETURN_IF_ERROR(Embed(pass));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    RETURN_IF_ERROR(RunLayer(pass, layer));
    Beat();
  }
  return absl::OkStatus();
}

absl::Status GptModel::Embed(const Pass& pass) {
  const int64_t rows = std::ssize(pass.tokens);
  const int rank = communicator_->rank();
  hanlin::Embed({.rows = rows,
                 .ids = pass.tokens.data(),
                 .positions = pass.positions.data(),
                 .table = weights_->word_embedding,
                 .vocabulary_begin = int64_t{rank} * (config_.vocab_size / tp_size()),
                 .position_table = rank == 0 ? weights_->position_embedding : nullptr,
                 .out = activations_.x},
                pool_);
  return communicator_->AllReduceSum(
      {activations_.x, static_cast<size_t>(rows) * config_.hidden_size});
}

absl::Status GptModel::RunLayer(const Pass& pass, int layer) {
  const LayerWeights& w = weights_->layers[layer];
  int64_t rows = std::ssize(pass.tokens);
  const int64_t hidden = config_.hidden_size;
  const int64_t local_ffn = config_.ffn_size / tp_size();

  Normalize(rows, activations_.x, w.ln1_weight, w.ln1_bias);
  Linear(w.qkv,
         {.m = rows,
          .x = activations_.normed,
          .x_stride = hidden,
          .bias = w.qkv_bias,
          .y = activations_.qkv,
          .y_stride = 3 * local_width_},
         pool_);
  Attend(pass, layer);
  if (layer == config_.num_layers - 1) {
    KeepRows(pass.logit_rows);
    rows = std::ssize(pass.logit_rows);
    if (rows == 0) return absl::OkStatus();
  }
  RETURN_IF_ERROR(RowParallel(rows, w.attention_out, w.attention_bias, activations_.attention));

  Normalize(rows, activations_.x, w.ln2_weight, w.ln2_bias);
  Linear(
      w.mlp_up,
      {.m = rows,
       .x = activations_.normed,
       .x_stride = hidden,
       .bias = w.mlp_up_bias,
       .activation = config_.gelu == GeluKind::kTanh ? Activation::kGeluTanh : Activation::kGeluErf,
       .y = activations_.mlp,
       .y_stride = local_ffn,
       .y_type = type_},
      pool_);
  return RowParallel(rows, w.mlp_down, w.mlp_down_bias, activations_.mlp);
}

void GptModel::Attend(const Pass& pass, int layer) {
  const int heads = config_.num_heads / tp_size();
  const size_t block_bytes = hanlin::KvBlockBytes(type_, heads, config_.head_dim);
  const KvCache cache = {.type = type_,
                         .heads = heads,
                         .head_dim = config_.head_dim,
                         .base = kv_ + layer * block_bytes,
                         .block_stride_bytes = block_bytes * config_.num_layers};
  const float* qkv = activations_.qkv;
  WriteKv({.segments = pass.segments,
           .k = qkv + local_width_,
           .v = qkv + 2 * local_width_,
           .row_stride = 3 * local_width_,
           .head_stride = config_.head_dim,
           .cache = cache},
          pool_);
  Attention({.segments = pass.segments,
             .q = qkv,
             .row_stride = 3 * local_width_,
             .head_stride = config_.head_dim,
             .cache = cache,
             .out = activations_.attention,
             .out_stride = local_width_,
             .out_type = type_},
            pool_);
}

void GptModel::KeepRows(std::span<const int32_t> rows) {
  const size_t x_bytes = config_.hidden_size * sizeof(float);
  const size_t attention_bytes = local_width_ * SizeOf(type_);
  auto* x = reinterpret_cast<std::byte*>(activations_.x);
  for (size_t i = 0; i < rows.size(); ++i) {  // ascending, so a row never lands on one to come
    std::memmove(x + i * x_bytes, x + rows[i] * x_bytes, x_bytes);
    std::memmove(activations_.attention + i * attention_bytes,
                 activations_.attention + rows[i] * attention_bytes, attention_bytes);
  }
}

absl::Status GptModel::RowParallel(int64_t rows, const PackedMatrix& weight, const float* bias,
                                   const std::byte* in) {
  const int64_t hidden = config_.hidden_size;
  LinearParams params = {.m = rows, .x = in, .x_stride = weight.k, .y_stride = hidden};
  if (tp_size() == 1) {
    params.bias = bias;
    params.residual = activations_.x;
    params.residual_stride = hidden;
    params.y = activations_.x;
    Linear(weight, params, pool_);
    return absl::OkStatus();
  }
  params.y = activations_.delta;
  Linear(weight, params, pool_);
  RETURN_IF_ERROR(communicator_->AllReduceSum({activations_.delta, size_t(rows * hidden)}));
  ResidualAdd({.rows = rows,
               .width = hidden,
               .delta = activations_.delta,
               .bias = bias,
               .x = activations_.x},
              pool_);
  return absl::OkStatus();
}

void GptModel::Normalize(int64_t rows, const float* in, const float* weight, const float* bias) {
  const int64_t hidden = config_.hidden_size;
  LayerNorm({.rows = rows,
             .width = hidden,
             .x = in,
             .x_stride = hidden,
             .weight = weight,
             .bias = bias,
             .epsilon = config_.layernorm_epsilon,
             .y = activations_.normed,
             .y_stride = hidden,
             .y_type = type_},
            pool_);
}

absl::Status GptModel::Logits(int64_t rows, float* out) {
  const int64_t hidden = config_.hidden_size;
  const int64_t columns = config_.vocab_size / tp_size();
  for (int64_t row = 0; row < rows; row += kLogitRowsPerChunk) {
    const int64_t count = std::min(kLogitRowsPerChunk, rows - row);
    Normalize(count, activations_.x + row * hidden, weights_->final_ln_weight,
              weights_->final_ln_bias);
    float* shard = tp_size() == 1 ? out : activations_.logits_shard;
    Linear(
        weights_->word_embedding,
        {.m = count, .x = activations_.normed, .x_stride = hidden, .y = shard, .y_stride = columns},
        pool_);
    if (tp_size() > 1) RETURN_IF_ERROR(communicator_->GatherColumns(shard, count, columns, out));
    if (out != nullptr) out += count * config_.vocab_size;
    Beat();
  }
  return absl::OkStatus();
}

void GptModel::Beat() {
  if (heartbeat_ != nullptr) heartbeat_->fetch_add(1, std::memory_order_relaxed);
}

}  // namespace hanlin
