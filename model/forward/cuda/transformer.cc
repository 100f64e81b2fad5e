// See transformer.h.
#include "model/forward/cuda/transformer.h"

#include <algorithm>

#include "common/cuda/status.h"
#include "kernels/attention/cuda/paged_attention.h"
#include "kernels/embed/cuda/embed.h"
#include "kernels/gemv/cuda/gemv.h"
#include "kernels/norm/cuda/layer_norm.h"
#include "model/forward/cuda/gather.h"

namespace hanlin {
namespace {

constexpr uint64_t kAlignment = 256;
// Bytes of the MLP's first matrix that the product before it brings into L2 while attention and the
// norm leave memory idle. Measured on an H100, 2.7B: 1 % of a step; twice as much costs it again.
constexpr int64_t kAheadOfGemv = 8'000'000;
constexpr int64_t kAheadOfSkinny = 12'000'000;
constexpr int64_t kAheadOfMedium = 8'000'000;
// The same of the next layer's first matrix at 65 to 128 rows, behind the MLP: 0.1 %; 8 MB cost it.
constexpr int64_t kAheadOfNextLayer = 4'000'000;
// On Hopper smaller products go to kernels of our own.
constexpr int64_t kFirstPreparedRows = 192;

// Sizes of the activations, in bytes; zero for what is not needed.
struct Sizes {
  uint64_t x, delta, normed, qkv, attention, mlp, tail_x, tail_attention, shard, scratch;
  uint64_t total() const {
    return x + delta + normed + qkv + attention + mlp + tail_x + tail_attention + shard + scratch;
  }
};

Sizes SizesOf(const CudaTransformer::Options& options) {
  const auto round = [](uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  const ModelConfig& config = options.config;
  const bool sharded = options.communicator != nullptr;
  const uint64_t tp = sharded ? options.communicator->size() : 1;
  const uint64_t tokens = options.max_tokens;
  const uint64_t hidden = config.hidden_size;
  const uint64_t typed = SizeOf(options.type);
  const uint64_t logits =
      static_cast<uint64_t>(options.max_logit_rows) * config.vocab_size * sizeof(float);
  const uint64_t x = round(tokens * hidden * sizeof(float));
  return {.x = x,
          .delta = sharded ? x : 0,
          .normed = round(tokens * hidden * typed),
          .qkv = round(3 * tokens * (hidden / tp) * typed),
          .attention = round(tokens * (hidden / tp) * typed),
          .mlp = round(tokens * (config.ffn_size / tp) * typed),
          .tail_x = round(options.max_logit_rows * hidden * sizeof(float)),
          .tail_attention = round(options.max_logit_rows * (hidden / tp) * typed),
          .shard = sharded ? round(logits / tp) : 0,
          .scratch = sharded ? round(logits) : 0};
}

}  // namespace

CudaTransformer::CudaTransformer(const Options& options)
    : options_(options), local_heads_(options.config.num_heads / tp()) {}

uint64_t CudaTransformer::ActivationBytes(const Options& options) {
  return SizesOf(options).total() + PackedBytes(options);
}

absl::StatusOr<std::unique_ptr<CudaTransformer>> CudaTransformer::Create(const Options& options) {
  std::unique_ptr<CudaTransformer> made(new CudaTransformer(options));
  ASSIGN_OR_RETURN(made->linear_, CudaLinear::Create(options.device,
                                                     {.batch_invariant = options.batch_invariant}));
  const Sizes sizes = SizesOf(options);
  ASSIGN_OR_RETURN(made->memory_, DeviceBuffer<std::byte>::Create(sizes.total()));
  std::byte* at = made->memory_.data();
  const auto take = [&](uint64_t bytes, auto** out) {
    *out = reinterpret_cast<std::remove_pointer_t<decltype(out)>>(at);
    at += bytes;
  };
  take(sizes.x, &made->x_);
  take(sizes.delta, &made->delta_);
  take(sizes.normed, &made->normed_);
  take(sizes.qkv, &made->qkv_);
  take(sizes.attention, &made->attention_);
  take(sizes.mlp, &made->mlp_);
  take(sizes.tail_x, &made->tail_x_);
  take(sizes.tail_attention, &made->tail_attention_);
  take(sizes.shard, &made->shard_);
  take(sizes.scratch, &made->scratch_);
  return made;
}

L2Prefetch CudaTransformer::Ahead(const CudaMatrix& weight, int64_t rows) const {
  const LinearPath path = linear_->Select(rows, weight.n, weight.k, options_.type);
  return {.data = weight.data,
          .bytes = static_cast<int64_t>(weight.n * weight.k * SizeOf(options_.type)) / 16 * 16,
          .ahead = path == LinearPath::kMedium ? kAheadOfMedium
                   : rows <= kGemvMaxBatch     ? kAheadOfGemv
                                               : kAheadOfSkinny};
}

L2Prefetch CudaTransformer::AheadOfNextLayer(int layer, int64_t rows) const {
  if (layer + 1 == options_.config.num_layers) return {};
  const CudaMatrix& qkv = options_.weights->layers[layer + 1].qkv;
  if (linear_->Select(rows, qkv.n, qkv.k, options_.type) != LinearPath::kMedium) return {};
  L2Prefetch next = Ahead(qkv, rows);
  next.ahead = kAheadOfNextLayer;
  return next;
}

GemmParams CudaTransformer::Product(int64_t rows, const CudaMatrix& weight, const CudaVector& bias,
                                    LinearEpilogue epilogue, const void* x, void* y) const {
  return {.m = rows,
          .n = weight.n,
          .k = weight.k,
          .type = options_.type,
          .weight = weight.data,
          .x = x,
          .bias = bias.data,
          .bias_bf16 = bias.bf16,
          .epilogue = epilogue,
          .y = y};
}

absl::Status CudaTransformer::Prepare(float* logits, const CudaStream& stream) {
  const CudaLayerWeights& w = options_.weights->layers.front();
  const LinearEpilogue gelu = options_.config.gelu == GeluKind::kTanh ? LinearEpilogue::kGeluTanh
                                                                      : LinearEpilogue::kGeluErf;
  const bool sharded = options_.communicator != nullptr;
  const LinearEpilogue add = sharded ? LinearEpilogue::kFloat32 : LinearEpilogue::kResidual;
  const CudaVector none;
  float* const sum = sharded ? delta_ : x_;
  const int64_t first = options_.device.hopper ? kFirstPreparedRows : 1;
  for (int64_t m = CublasLtBucket(first); m <= options_.max_tokens; m = CublasLtBucket(m + 1)) {
    for (const GemmParams& params :
         {Product(m, w.qkv, w.qkv_bias, LinearEpilogue::kNone, normed_, qkv_),
          Product(m, w.attention_out, sharded ? none : w.attention_bias, add, attention_, sum),
          Product(m, w.mlp_up, w.mlp_up_bias, gelu, normed_, mlp_),
          Product(m, w.mlp_down, sharded ? none : w.mlp_down_bias, add, mlp_, sum)}) {
      RETURN_IF_ERROR(linear_->Prepare(params, stream));
    }
  }
  // Where a kernel of our own takes the output layer, this does nothing. The last bucket may be cut
  // short.
  for (int64_t m = 1, rows = 0; rows < options_.max_logit_rows; m = CublasLtBucket(m + 1)) {
    rows = std::min<int64_t>(m, options_.max_logit_rows);
    RETURN_IF_ERROR(
        linear_->Prepare(Product(rows, options_.weights->word_embedding, none,
                                 LinearEpilogue::kFloat32, normed_, sharded ? shard_ : logits),
                         stream));
  }
  return PrepareDecode(stream);
}

absl::Status CudaTransformer::Embed(const Pass& pass, const CudaStream& stream) {
  const CudaMatrix& table = options_.weights->word_embedding;
  PassView plan = pass.plan;
  PlanFetch fetch;
  if (pass.pinned_plan != nullptr) {
    plan = ViewOf(pass.pinned_plan, pass.shape);
    fetch = {pass.pinned_plan, pass.plan.base, static_cast<int64_t>(FixedBytes(pass.shape))};
  }
  return CudaEmbed(
      {.rows = pass.shape.tokens,
       .width = options_.config.hidden_size,
       .ids = plan.ids,
       .drawn = pass.drawn,
       .positions = plan.positions,
       .table = table.data,
       .table_type = options_.type,
       .vocabulary_begin = rank() * table.n,
       .vocabulary_rows = table.n,
       .position_table = rank() == 0 ? options_.weights->position_embedding.data : nullptr,
       .num_positions = options_.config.max_positions,
       .x = x_,
       .fetch = fetch},
      stream.get());
}

// Where most rows are not wanted behind the last attention, as in a prefill, the rest of the last
// layer leaves them out.
bool CudaTransformer::CutsRows(const Pass& pass) const {
  return pass.shape.segments > 0 && pass.shape.logit_rows <= options_.max_logit_rows &&
         2 * pass.shape.logit_rows <= pass.shape.tokens;
}

absl::Status CudaTransformer::CutRows(const Pass& pass, const CudaStream& stream) {
  const size_t hidden = options_.config.hidden_size;
  residual_ = tail_x_;
  if (pass.shape.logit_rows == 0) return absl::OkStatus();
  return CudaStatus(
      LaunchGather({.rows = pass.shape.logit_rows,
                    .index = pass.plan.row_index,
                    .from = {x_, attention_},
                    .to = {tail_x_, tail_attention_},
                    .row_bytes = {hidden * sizeof(float), hidden / tp() * SizeOf(options_.type)}},
                   stream.get()),
      "launch of gather");
}

absl::Status CudaTransformer::Layers(const Pass& pass, const CudaStream& stream) {
  int64_t rows = pass.shape.tokens;
  residual_ = x_;
  const LinearEpilogue gelu = options_.config.gelu == GeluKind::kTanh ? LinearEpilogue::kGeluTanh
                                                                      : LinearEpilogue::kGeluErf;
  pending_ = false;
  RETURN_IF_ERROR(Embed(pass, stream));
  if (options_.communicator != nullptr) {
    RETURN_IF_ERROR(
        options_.communicator->AllReduceSum(x_, rows * options_.config.hidden_size, stream));
  }
  if (rows == 1 && pass.shape.decode_rows == 1) {
    if (packed_.size() > 0) return DecodeBlocks(pass, stream);
    if (step_layers_.size() > 0) return RunStep(pass, stream);
  }
  for (int layer = 0; layer < options_.config.num_layers; ++layer) {
    const CudaLayerWeights& w = options_.weights->layers[layer];
    RETURN_IF_ERROR(NormLinear(rows, w.ln1_weight, w.ln1_bias, nullptr, w.qkv, w.qkv_bias,
                               LinearEpilogue::kNone, qkv_, stream));
    RETURN_IF_ERROR(Attend(pass, layer, stream));
    const std::byte* attention = attention_;
    if (layer == options_.config.num_layers - 1 && CutsRows(pass)) {
      RETURN_IF_ERROR(CutRows(pass, stream));
      attention = tail_attention_;
      rows = pass.shape.logit_rows;
      if (rows == 0) return absl::OkStatus();
    }
    RETURN_IF_ERROR(RowParallel(rows, w.attention_out, w.attention_bias, attention,
                                Ahead(w.mlp_up, rows), stream));
    RETURN_IF_ERROR(NormLinear(rows, w.ln2_weight, w.ln2_bias, nullptr, w.mlp_up, w.mlp_up_bias,
                               gelu, mlp_, stream));
    RETURN_IF_ERROR(RowParallel(rows, w.mlp_down, w.mlp_down_bias, mlp_,
                                AheadOfNextLayer(layer, rows), stream));
  }
  return absl::OkStatus();
}

PagedKv CudaTransformer::KvOfLayer(const Pass& pass, int layer) const {
  const int head_dim = options_.config.head_dim;
  const size_t block_bytes = PagedKvBlockBytes(options_.type, local_heads_, head_dim);
  return {.type = options_.type,
          .heads = local_heads_,
          .head_dim = head_dim,
          .base = kv_ + block_bytes * num_blocks_ * layer,
          .block_tables = pass.plan.tables,
          .table_stride = pass.shape.table_stride};
}

absl::Status CudaTransformer::Attend(const Pass& pass, int layer, const CudaStream& stream) {
  const ModelConfig& config = options_.config;
  const PagedKv kv = KvOfLayer(pass, layer);
  if (pass.shape.decode_rows > 0) {
    ASSIGN_OR_RETURN(const DecodeAttentionPlan plan,
                     PlanDecodeAttention(options_.type, pass.shape.decode_rows, local_heads_,
                                         config.head_dim, options_.device));
    RETURN_IF_ERROR(DecodeAttention({.kv = kv,
                                     .batch = pass.shape.decode_rows,
                                     .context = pass.plan.context,
                                     .qkv = qkv_,
                                     .out = attention_},
                                    plan, stream.get()));
  }
  if (pass.shape.segments == 0) return absl::OkStatus();
  PrefillAttentionParams prefill = {.kv = kv,
                                    .num_segments = pass.shape.segments,
                                    .max_tokens = pass.max_segment_tokens,
                                    .tokens = pass.shape.tokens,
                                    .plain = !options_.device.hopper,
                                    .segments = pass.plan.segments,
                                    .qkv = qkv_,
                                    .out = attention_};
  prefill.kv.block_tables += int64_t{pass.shape.decode_rows} * pass.shape.table_stride;
  return PrefillAttention(prefill, stream.get());
}

absl::Status CudaTransformer::NormLinear(int64_t rows, const CudaVector& norm_weight,
                                         const CudaVector& norm_bias, const int32_t* row_index,
                                         const CudaMatrix& weight, const CudaVector& bias,
                                         LinearEpilogue epilogue, void* y,
                                         const CudaStream& stream) {
  const LinearPath path = linear_->Select(rows, weight.n, weight.k, options_.type);
  if (path == LinearPath::kGemv && !pending_ && row_index == nullptr) {
    const int batch = static_cast<int>(rows);
    ASSIGN_OR_RETURN(const GemvPlan plan,
                     PlanGemv(weight.n, weight.k, batch, options_.device.multiprocessors,
                              options_.device.shared_memory_per_block));
    return Gemv({.n = weight.n,
                 .k = weight.k,
                 .batch = batch,
                 .weight = static_cast<const BFloat16*>(weight.data),
                 .input = GemvInput::kLayerNorm,
                 .x = residual_,
                 .norm_weight = norm_weight.data,
                 .norm_bias = norm_bias.data,
                 .epsilon = options_.config.layernorm_epsilon,
                 .bias = bias.data,
                 .epilogue = epilogue,
                 .y = y},
                plan, stream.get());
  }
  RETURN_IF_ERROR(CudaLayerNorm({.rows = rows,
                                 .width = options_.config.hidden_size,
                                 .x = residual_,
                                 .row_index = row_index,
                                 .delta = pending_ ? delta_ : nullptr,
                                 .delta_bias = pending_ ? pending_bias_ : nullptr,
                                 .weight = norm_weight.data,
                                 .bias = norm_bias.data,
                                 .epsilon = options_.config.layernorm_epsilon,
                                 .y = normed_,
                                 .y_type = options_.type},
                                stream.get()));
  pending_ = false;
  return linear_->Run(Product(rows, weight, bias, epilogue, normed_, y), stream);
}

absl::Status CudaTransformer::RowParallel(int64_t rows, const CudaMatrix& weight,
                                          const CudaVector& bias, const void* in,
                                          const L2Prefetch& next, const CudaStream& stream) {
  if (options_.communicator == nullptr) {
    GemmParams product = Product(rows, weight, bias, LinearEpilogue::kResidual, in, residual_);
    product.next = next;
    return linear_->Run(product, stream);
  }
  RETURN_IF_ERROR(
      linear_->Run(Product(rows, weight, {}, LinearEpilogue::kFloat32, in, delta_), stream));
  RETURN_IF_ERROR(
      options_.communicator->AllReduceSum(delta_, rows * options_.config.hidden_size, stream));
  pending_ = true;
  pending_bias_ = bias.data;
  return absl::OkStatus();
}

absl::Status CudaTransformer::Logits(const Pass& pass, int32_t begin, int32_t count, float* out,
                                     const CudaStream& stream) {
  const CudaWeights& w = *options_.weights;
  // Behind a cut the rows are those of the residual stream, and one call takes them all.
  const bool all = pass.all_rows || residual_ == tail_x_;
  const int32_t* const rows = all ? nullptr : pass.plan.row_index + begin;
  float* const y = options_.communicator == nullptr ? out : shard_;
  const bool pending = pending_;
  RETURN_IF_ERROR(NormLinear(count, w.final_ln_weight, w.final_ln_bias, rows, w.word_embedding, {},
                             LinearEpilogue::kFloat32, y, stream));
  pending_ = pending;  // for the rows of the next call
  if (options_.communicator == nullptr) return absl::OkStatus();
  return options_.communicator->GatherColumns(shard_, count, w.word_embedding.n, scratch_, out,
                                              stream);
}

}  // namespace hanlin
