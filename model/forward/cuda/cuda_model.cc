// See cuda_model.h. This file: steps. Loading and memory are in cuda_model_load.cc.
#include "model/forward/cuda/cuda_model.h"

#include <algorithm>
#include <cstring>

#include "common/cuda/status.h"
#include "kernels/sampling/cuda/sample.h"
#include "model/forward/cuda/draw_layout.h"
#include "model/forward/cuda/fault.h"

namespace hanlin {

CudaGptModel::~CudaGptModel() {
  // Pinned memory must not go while copies are under way.
  if (stream_.get() != nullptr) cudaStreamSynchronize(stream_.get());
}

absl::Status CudaGptModel::Check(const StepBatch& batch, size_t logits) const {
  RETURN_IF_ERROR(CheckStep(batch, limits_));
  if (std::ssize(batch.sequences) > max_tokens_) {
    return InvalidArgument("a step of {} sequences, want at most {}", batch.sequences.size(),
                           max_tokens_);
  }
  const size_t want = batch.logit_rows.size() * config_.vocab_size;
  if (logits != want) return InvalidArgument("room for {} logits, want {}", logits, want);
  return absl::OkStatus();
}

absl::Status CudaGptModel::Run(const StepBatch& batch, std::span<float> logits) {
  RETURN_IF_ERROR(Check(batch, logits.size()));
  if (in_flight_ != 0) return FailedPrecondition("{} steps are in flight, want none", in_flight_);
  RETURN_IF_CUDA_ERROR(cudaSetDevice(device_.ordinal));
  Slot& slot = slots_[0];
  float* out = logits.data();
  for (const Pass& pass : CutIntoPasses(batch, max_tokens_)) {
    const PassShape shape = ShapeOf(pass, table_stride_, transformer_->has_decode_rows());
    ASSIGN_OR_RETURN(std::byte* const plan, PlanMemory(&slot, 0, FixedBytes(shape)));
    const int32_t longest = FillPass(pass, limits_.block_tokens, shape, ViewOf(plan, shape));
    RETURN_IF_ERROR(Upload(plan, 0, FixedBytes(shape)));
    const CudaTransformer::Pass on_device = OnDevice(shape, longest, false);
    RETURN_IF_ERROR(transformer_->Layers(on_device, stream_));
    for (int32_t row = 0; row < shape.logit_rows; row += max_sequences_) {
      const int32_t count = std::min(max_sequences_, shape.logit_rows - row);
      RETURN_IF_ERROR(transformer_->Logits(on_device, row, count, logits_.data(), stream_));
      const size_t values = static_cast<size_t>(count) * config_.vocab_size;
      RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(out, logits_.data(), values * sizeof(float),
                                           cudaMemcpyDeviceToHost, stream_.get()));
      out += values;
    }
    RETURN_IF_ERROR(stream_.Synchronize());  // the plan's memory is used again
    Beat();
  }
  return absl::OkStatus();
}

absl::Status CudaGptModel::Begin(const StepBatch& batch, std::span<const CudaSampleRow> samples) {
  StepLimits limits = limits_;
  limits.drawn_rows = last_rows_;
  RETURN_IF_ERROR(CheckStep(batch, limits));
  if (std::ssize(batch.sequences) > max_sequences_ || samples.size() != batch.logit_rows.size()) {
    return InvalidArgument("a step of {} sequences, {} logit rows and {} draws, want at most {}",
                           batch.sequences.size(), batch.logit_rows.size(), samples.size(),
                           max_sequences_);
  }
  if (in_flight_ == kMaxInFlight) return FailedPrecondition("{} steps are in flight", in_flight_);
  RETURN_IF_CUDA_ERROR(cudaSetDevice(device_.ordinal));
  if (IsFaultStep(++steps_)) RETURN_IF_CUDA_ERROR(LaunchFault(stream_.get()));

  Slot& slot = slots_[next_slot_];
  const std::vector<Pass> passes = CutIntoPasses(batch, max_tokens_);
  const Graph* graph = nullptr;
  if (passes.size() == 1) {
    graph =
        FindGraph(passes[0], ShapeOf(passes[0], table_stride_, transformer_->has_decode_rows()));
  }
  if (graph != nullptr) {
    RETURN_IF_ERROR(BeginGraph(passes[0], *graph, samples, &slot));
  } else {
    RETURN_IF_ERROR(BeginEager(passes, samples, &slot));
  }
  RETURN_IF_ERROR(DownloadDraws(samples, &slot));
  if (communicator_ != nullptr) RETURN_IF_ERROR(communicator_->Watch(stream_));
  next_slot_ = (next_slot_ + 1) % kMaxInFlight;
  ++in_flight_;
  last_rows_ = static_cast<int32_t>(samples.size());
  Beat();
  return absl::OkStatus();
}

absl::StatusOr<CudaGptModel::Draws> CudaGptModel::Finish() {
  if (in_flight_ == 0) return absl::FailedPreconditionError("no step is in flight");
  const Slot& slot = slots_[(next_slot_ + kMaxInFlight - in_flight_) % kMaxInFlight];
  --in_flight_;
  RETURN_IF_ERROR(slot.done.Wait());
  Beat();
  const DrawLayout layout(max_sequences_);
  const std::byte* const base = slot.draws.data();
  return Draws{.ids = {reinterpret_cast<const int32_t*>(base), static_cast<size_t>(slot.rows)},
               .logprobs = reinterpret_cast<const float*>(base + layout.logprobs),
               .top_ids = reinterpret_cast<const int32_t*>(base + layout.top_ids),
               .top_logprobs = reinterpret_cast<const float*>(base + layout.top_logprobs)};
}

const CudaGptModel::Graph* CudaGptModel::FindGraph(const Pass& pass, const PassShape& shape) const {
  // One token a sequence, and each of them draws.
  if (std::ssize(pass.segments) != shape.tokens || shape.logit_rows != shape.tokens) return nullptr;
  const auto graph = std::ranges::lower_bound(graphs_, shape.tokens, {}, &Graph::bucket);
  return graph == graphs_.end() ? nullptr : &*graph;
}

absl::StatusOr<std::byte*> CudaGptModel::PlanMemory(Slot* slot, size_t index, size_t bytes) {
  if (bytes > plan_.size()) {
    return InvalidArgument("a plan of {} bytes, want at most {}", bytes, plan_.size());
  }
  while (slot->plans.size() <= index) {
    ASSIGN_OR_RETURN(PinnedBuffer<std::byte> buffer, PinnedBuffer<std::byte>::Create(plan_.size()));
    slot->plans.push_back(std::move(buffer));
  }
  return slot->plans[index].data();
}

absl::Status CudaGptModel::Upload(const std::byte* from, size_t offset, size_t bytes) {
  return CudaStatus(
      cudaMemcpyAsync(plan_.data() + offset, from, bytes, cudaMemcpyHostToDevice, stream_.get()),
      "copy of a step plan");
}

CudaTransformer::Pass CudaGptModel::OnDevice(const PassShape& shape, int32_t max_segment_tokens,
                                             bool all_rows) const {
  return {.shape = shape,
          .plan = ViewOf(plan_.data(), shape),
          .max_segment_tokens = max_segment_tokens,
          .drawn = drawn_.data(),
          .all_rows = all_rows};
}

absl::Status CudaGptModel::BeginGraph(const Pass& pass, const Graph& graph,
                                      std::span<const CudaSampleRow> samples, Slot* slot) {
  const PassShape& shape = graph.shape;
  const size_t fixed = FixedBytes(shape);
  ASSIGN_OR_RETURN(std::byte* const plan, PlanMemory(slot, 0, fixed + ExtraBytes(samples)));
  const PassView view = ViewOf(plan, shape);
  FillPass(pass, limits_.block_tokens, shape, view);
  std::vector<CountedRow> counted;
  const size_t extra = FillSamples(samples, shape, view, &counted);
  // The graph fetches the fixed part by itself.
  if (extra > 0) RETURN_IF_ERROR(Upload(plan + fixed, fixed, extra));
  RETURN_IF_ERROR(CountIds(counted, ViewOf(plan_.data(), shape).extra));
  graph_replays_.fetch_add(1, std::memory_order_relaxed);
  return graph.graphs[slot - slots_].Launch(stream_);
}

absl::Status CudaGptModel::BeginEager(const std::vector<Pass>& passes,
                                      std::span<const CudaSampleRow> samples, Slot* slot) {
  float* logits = logits_.data();
  for (size_t i = 0; i < passes.size(); ++i) {
    const Pass& pass = passes[i];
    PassShape shape = ShapeOf(pass, table_stride_, transformer_->has_decode_rows());
    // Rows are drawn together behind the last pass, whose plan has room for all of them.
    const bool last = i + 1 == passes.size();
    const int32_t rows = shape.logit_rows;
    if (last) shape.logit_rows = static_cast<int32_t>(samples.size());
    const size_t fixed = FixedBytes(shape);
    ASSIGN_OR_RETURN(std::byte* const plan,
                     PlanMemory(slot, i, fixed + (last ? ExtraBytes(samples) : 0)));
    const PassView view = ViewOf(plan, shape);
    const int32_t longest = FillPass(pass, limits_.block_tokens, shape, view);
    std::vector<CountedRow> counted;
    const size_t extra = last ? FillSamples(samples, shape, view, &counted) : 0;
    RETURN_IF_ERROR(Upload(plan, 0, fixed + extra));
    const CudaTransformer::Pass on_device = OnDevice(shape, longest, false);
    if (last) RETURN_IF_ERROR(CountIds(counted, on_device.plan.extra));
    RETURN_IF_ERROR(transformer_->Layers(on_device, stream_));
    if (rows > 0) {
      RETURN_IF_ERROR(transformer_->Logits(on_device, 0, rows, logits, stream_));
      logits += static_cast<size_t>(rows) * config_.vocab_size;
    }
    if (last && !samples.empty()) RETURN_IF_ERROR(Sample(shape, on_device.plan, *slot));
    eager_passes_.fetch_add(1, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

absl::Status CudaGptModel::CountIds(const std::vector<CountedRow>& counted,
                                    const std::byte* extra) {
  for (const CountedRow& row : counted) {
    RETURN_IF_ERROR(CudaCountIds(
        reinterpret_cast<const int32_t*>(extra + row.offset), row.count, config_.vocab_size,
        counts_.data() + static_cast<size_t>(row.row) * config_.vocab_size, stream_.get()));
  }
  return absl::OkStatus();
}

absl::Status CudaGptModel::Sample(const PassShape& shape, const PassView& view, const Slot& slot) {
  const DrawLayout layout(max_sequences_);
  std::byte* const draws = draws_.data();
  ASSIGN_OR_RETURN(const SamplePlan plan,
                   PlanSample(shape.logit_rows, config_.vocab_size, device_));
  return CudaSample({.rows = shape.logit_rows,
                     .vocabulary = config_.vocab_size,
                     .logits = logits_.data(),
                     .logits_stride = config_.vocab_size,
                     .row_slots = view.row_slots,
                     .slots = view.slots,
                     .positions = view.sample_positions,
                     .bias = reinterpret_cast<const SampleBias*>(view.extra),
                     .banned = reinterpret_cast<const int32_t*>(view.extra),
                     .counts = counts_.data(),
                     .workspace = adjusted_.data(),
                     .drawn = drawn_.data(),
                     .ids = reinterpret_cast<int32_t*>(slot.draws.data()),
                     .logprob = reinterpret_cast<float*>(draws + layout.logprobs),
                     .top_ids = reinterpret_cast<int32_t*>(draws + layout.top_ids),
                     .top_logprobs = reinterpret_cast<float*>(draws + layout.top_logprobs)},
                    plan, stream_.get());
}

absl::Status CudaGptModel::DownloadDraws(std::span<const CudaSampleRow> samples, Slot* slot) {
  slot->rows = static_cast<int32_t>(samples.size());
  // The ids are written to the host by the sampler itself.
  if (std::ranges::any_of(samples, [](const auto& sample) { return sample.slot.logprobs >= 0; })) {
    const DrawLayout layout(max_sequences_);
    RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(slot->draws.data() + layout.logprobs, draws_.data() + layout.logprobs,
                        layout.bytes - layout.logprobs, cudaMemcpyDeviceToHost, stream_.get()));
  }
  return slot->done.Record(stream_);
}

CudaGptModel::Metrics CudaGptModel::metrics() const {
  Metrics metrics{.graph_replays = graph_replays_.load(std::memory_order_relaxed),
                  .eager_passes = eager_passes_.load(std::memory_order_relaxed)};
  size_t free = 0, total = 0;
  if (cudaSetDevice(device_.ordinal) == cudaSuccess &&
      cudaMemGetInfo(&free, &total) == cudaSuccess) {
    metrics.memory_used = total - free;
    metrics.memory_total = total;
  }
  return metrics;
}

void CudaGptModel::Beat() {
  if (heartbeat_ != nullptr) heartbeat_->fetch_add(1, std::memory_order_relaxed);
}

}  // namespace hanlin
