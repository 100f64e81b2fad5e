// See cuda_model.h. This file: from a checkpoint to a model that runs: memory, warm-up, graphs.
#include <algorithm>
#include <iterator>

#include "common/cuda/status.h"
#include "kernels/attention/cuda/paged_attention.h"
#include "kernels/sampling/cuda/sample.h"
#include "model/forward/cuda/cuda_model.h"
#include "model/forward/cuda/draw_layout.h"

namespace hanlin {
namespace {

// Batches that have a graph: dense where a row more costs little work, so that padding does too.
constexpr int32_t kBuckets[] = {1,  2,  3,  4,  6,  8,   12,  16,  24,  32,  40,
                                48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256};
// Left free beside the KV cache: graphs, and what the driver takes as it goes.
constexpr uint64_t kReserveBytes = uint64_t{512} << 20;
constexpr int32_t kWarmUpTokens = 256;
// Bounds of a request's lists (worker/engine/request.h), for the size of a plan.
constexpr size_t kMaxBias = 4096;
constexpr size_t kMaxBanned = 128;

int TpSize(const CudaGptModel::Options& options) {
  return options.communicator == nullptr ? 1 : options.communicator->size();
}

std::string Gigabytes(uint64_t bytes) { return fmt::format("{:.2f} GiB", bytes / 0x1p30); }

absl::Status CheckOptions(const CudaGptModel::Options& options) {
  const ModelConfig& config = options.checkpoint->config();
  if (config.head_dim % 8 != 0 || config.head_dim > kPagedMaxHeadDim) {
    return FailedPrecondition("head size {}, want a multiple of 8 up to {}", config.head_dim,
                              kPagedMaxHeadDim);
  }
  if (options.num_kv_blocks < 0 || options.max_sequences < 1 || options.max_tokens_per_pass < 1) {
    return InvalidArgument("{} KV blocks, {} sequences and {} tokens a pass", options.num_kv_blocks,
                           options.max_sequences, options.max_tokens_per_pass);
  }
  return CheckTp(config, TpSize(options));
}

CudaTransformer::Options TransformerOptions(const CudaGptModel::Options& options,
                                            const CudaDevice& device) {
  return {.config = options.checkpoint->config(),
          .type = options.compute_type,
          .device = device,
          .communicator = options.communicator,
          .max_tokens = std::max(options.max_tokens_per_pass, options.max_sequences),
          .max_logit_rows = options.max_sequences,
          .batch_invariant = options.batch_invariant};
}

}  // namespace

CudaGptModel::CudaGptModel(const Options& options)
    : config_(options.checkpoint->config()),
      type_(options.compute_type),
      max_sequences_(options.max_sequences),
      max_tokens_(std::max(options.max_tokens_per_pass, 1)),
      batch_invariant_(options.batch_invariant),
      use_graphs_(options.graphs),
      heartbeat_(options.heartbeat),
      communicator_(options.communicator),
      limits_{.vocab_size = config_.vocab_size,
              .max_positions = config_.max_positions,
              .num_blocks = 1,
              .block_tokens = kPagedKvTokens},
      table_stride_((config_.max_positions + kPagedKvTokens - 1) / kPagedKvTokens) {}

absl::StatusOr<std::unique_ptr<CudaGptModel>> CudaGptModel::Create(const Options& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<CudaGptModel> model(new CudaGptModel(options));
  ASSIGN_OR_RETURN(model->device_, OpenCudaDevice(options.device));
  RETURN_IF_ERROR(CheckBatchInvariance(model->device_, options.batch_invariant));
  ASSIGN_OR_RETURN(model->stream_, CudaStream::Create());
  RETURN_IF_ERROR(model->CheckMemory(options));
  RETURN_IF_ERROR(model->Load(options));
  RETURN_IF_ERROR(model->AllocateBuffers());
  RETURN_IF_ERROR(model->WarmUp());
  RETURN_IF_ERROR(model->AllocateKv(options));
  RETURN_IF_ERROR(model->CaptureGraphs());
  return model;
}

uint64_t CudaGptModel::KvBlockBytes(const ModelConfig& config, ComputeType type, int tp_size) {
  return PagedKvBlockBytes(type, config.num_heads / tp_size, config.head_dim) * config.num_layers;
}

// Said before anything is loaded.
absl::Status CudaGptModel::CheckMemory(const Options& options) const {
  const int tp = TpSize(options);
  const uint64_t weights = CudaWeightBytes(config_, type_, tp);
  // A logit, how often its id occurred, and on the plain path the sampler's copy.
  const uint64_t per_logit = device_.hopper ? 6 : 10;
  const uint64_t activations =
      CudaTransformer::ActivationBytes(TransformerOptions(options, device_)) +
      static_cast<uint64_t>(max_sequences_) * config_.vocab_size * per_logit;
  const uint64_t kv = KvBlockBytes(config_, type_, tp) *
                      (options.num_kv_blocks > 0 ? options.num_kv_blocks : table_stride_);
  const uint64_t wanted = weights + activations + kv + kReserveBytes;
  if (wanted <= device_.free_bytes) return absl::OkStatus();
  const std::string smaller = type_ == ComputeType::kFloat32 ? "--dtype bf16, " : "";
  return ResourceExhausted(
      "not enough memory on device {} ({}): the weights take {}, activations {}, the KV cache of "
      "{} "
      "tokens {} and a reserve of {}, {} in all, but {} of {} are free; what would fit: {}a larger "
      "--tp (now {}) or a smaller model",
      device_.ordinal, device_.name, Gigabytes(weights), Gigabytes(activations),
      kv / KvBlockBytes(config_, type_, tp) * kPagedKvTokens, Gigabytes(kv),
      Gigabytes(kReserveBytes), Gigabytes(wanted), Gigabytes(device_.free_bytes),
      Gigabytes(device_.total_bytes), smaller, tp);
}

absl::Status CudaGptModel::Load(const Options& options) {
  const WeightsOptions weights_options = {
      .type = type_,
      .tp_rank = communicator_ == nullptr ? 0 : communicator_->rank(),
      .tp_size = TpSize(options),
      .progress = options.progress};
  ASSIGN_OR_RETURN(weights_,
                   LoadCudaWeights(*options.checkpoint, weights_options, device_, options.pool));
  CudaTransformer::Options transformer_options = TransformerOptions(options, device_);
  transformer_options.weights = weights_.get();
  ASSIGN_OR_RETURN(transformer_, CudaTransformer::Create(transformer_options));
  return absl::OkStatus();
}

absl::Status CudaGptModel::AllocateBuffers() {
  const size_t rows = max_sequences_;
  const size_t vocabulary = config_.vocab_size;
  // A step's plan with every list at its longest, or the logits of every token (Run).
  const size_t sampling = FixedBytes({.tokens = max_tokens_,
                                      .segments = max_sequences_,
                                      .logit_rows = max_sequences_,
                                      .table_stride = table_stride_}) +
                          rows * (kMaxBias * sizeof(SampleBias) +
                                  (kMaxBanned + config_.max_positions) * sizeof(int32_t));
  const size_t scoring = FixedBytes({.tokens = max_tokens_,
                                     .segments = max_sequences_,
                                     .logit_rows = max_tokens_,
                                     .table_stride = table_stride_});
  ASSIGN_OR_RETURN(plan_, DeviceBuffer<std::byte>::Create(std::max(sampling, scoring)));
  ASSIGN_OR_RETURN(logits_, DeviceBuffer<float>::Create(rows * vocabulary));
  ASSIGN_OR_RETURN(counts_, DeviceBuffer<uint16_t>::Create(rows * vocabulary));
  ASSIGN_OR_RETURN(drawn_, DeviceBuffer<int32_t>::Create(rows));
  const size_t draw_bytes = DrawLayout(max_sequences_).bytes;
  ASSIGN_OR_RETURN(draws_, DeviceBuffer<std::byte>::Create(draw_bytes));
  ASSIGN_OR_RETURN(const SamplePlan sample,
                   PlanSample(max_sequences_, config_.vocab_size, device_));
  if (sample.plain) {
    ASSIGN_OR_RETURN(adjusted_, DeviceBuffer<float>::Create(rows * sample.slice));
  }
  for (Slot& slot : slots_) {
    ASSIGN_OR_RETURN(slot.draws, PinnedBuffer<std::byte>::Create(draw_bytes));
    ASSIGN_OR_RETURN(slot.done, CudaEvent::Create());
  }
  return drawn_.Clear();
}

// One step of everything on a cache of one block, so that what the driver and the libraries load
// on first use is there before the KV cache takes the rest.
absl::Status CudaGptModel::WarmUp() {
  DeviceBuffer<std::byte> kv;
  ASSIGN_OR_RETURN(kv, DeviceBuffer<std::byte>::Create(KvBlockBytes(
                           config_, type_, communicator_ == nullptr ? 1 : communicator_->size())));
  transformer_->SetKvCache(kv.data(), 1);
  if (type_ == ComputeType::kBFloat16 && !batch_invariant_) {
    RETURN_IF_ERROR(transformer_->Prepare(logits_.data(), stream_));
  }
  const int32_t chunk = std::min({kWarmUpTokens, config_.max_positions, max_tokens_ - 1});
  std::vector<int32_t> tokens(1 + chunk, 0), table(1 + table_stride_, 0);
  std::vector<StepSequence> sequences = {
      {.first_token = 0, .num_tokens = 1, .context_tokens = 0, .first_block = 0, .num_blocks = 1}};
  std::vector<int32_t> rows = {0};
  if (chunk > 0 && max_sequences_ > 1) {
    sequences.push_back({.first_token = 1,
                         .num_tokens = chunk,
                         .context_tokens = 0,
                         .first_block = 1,
                         .num_blocks = table_stride_});
    rows.push_back(chunk);
  } else {
    tokens.resize(1);
  }
  const std::vector<CudaSampleRow> samples(rows.size());
  RETURN_IF_ERROR(Begin({tokens, sequences, table, rows}, samples));
  RETURN_IF_ERROR(Finish().status());
  steps_ = 0;
  last_rows_ = 0;
  return stream_.Synchronize();
}

absl::Status CudaGptModel::AllocateKv(const Options& options) {
  const uint64_t block = KvBlockBytes(config_, type_, TpSize(options));
  int32_t blocks = options.num_kv_blocks;
  if (blocks == 0) {
    size_t free = 0, total = 0;
    RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free, &total));
    uint64_t room = free > kReserveBytes ? free - kReserveBytes : 0;
    if (options.max_kv_bytes.has_value()) room = std::min<uint64_t>(room, *options.max_kv_bytes);
    const uint64_t most = static_cast<uint64_t>(table_stride_) * max_sequences_;
    blocks = static_cast<int32_t>(std::min(room / block, most));
    if (blocks < 1) {
      return ResourceExhausted(
          "{} are left for the KV cache on device {}, want at least {}: one block of {} tokens",
          Gigabytes(room), device_.name, Gigabytes(block), kPagedKvTokens);
    }
  }
  ASSIGN_OR_RETURN(kv_, DeviceBuffer<std::byte>::Create(block * blocks));
  limits_.num_blocks = blocks;
  transformer_->SetKvCache(kv_.data(), blocks);
  return absl::OkStatus();
}

PassShape CudaGptModel::BucketShape(int32_t bucket) const {
  const bool decodes = transformer_->has_decode_rows();
  return {.tokens = bucket,
          .decode_rows = decodes ? bucket : 0,
          .segments = decodes ? 0 : bucket,
          .logit_rows = bucket,
          .table_stride = table_stride_};
}

absl::StatusOr<CudaGraph> CudaGptModel::Capture(const PassShape& shape, Slot* slot) {
  ASSIGN_OR_RETURN(std::byte* const plan, PlanMemory(slot, 0, FixedBytes(shape)));
  return CudaGraph::Capture(stream_, [&]() -> absl::Status {
    CudaTransformer::Pass pass = OnDevice(shape, /*max_segment_tokens=*/1, true);
    pass.pinned_plan = plan;
    RETURN_IF_ERROR(transformer_->Layers(pass, stream_));
    RETURN_IF_ERROR(transformer_->Logits(pass, 0, shape.logit_rows, logits_.data(), stream_));
    return Sample(shape, pass.plan, *slot);
  });
}

absl::Status CudaGptModel::CaptureGraphs() {
  if (!use_graphs_) return absl::OkStatus();
  for (const int32_t bucket : kBuckets) {
    if (bucket > max_sequences_ || bucket > max_tokens_) break;
    const PassShape shape = BucketShape(bucket);
    Graph graph{.bucket = bucket, .shape = shape};
    for (int slot = 0; slot < kMaxInFlight; ++slot) {
      ASSIGN_OR_RETURN(graph.graphs[slot], Capture(shape, &slots_[slot]));
    }
    graphs_.push_back(std::move(graph));
  }
  return absl::OkStatus();
}

}  // namespace hanlin
