// See cuda_bench.h.
#include "cli/bench/cuda_bench.h"

#include <algorithm>
#include <chrono>

#include "cli/output/progress.h"
#include "common/cuda/buffer.h"
#include "common/host/host.h"
#include "common/status/status.h"
#include "kernels/base/cuda/read_rate.h"
#include "kernels/gemm/cuda/peak.h"
#include "kernels/sampling/cuda/sample.h"
#include "model/forward/cuda/cuda_model.h"
#include "model/train/cuda/memory.h"
#include "worker/engine/model_rank.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStepsPerSample = 20;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// What the device can do, before a model takes its memory.
struct Roof {
  double read_rate = 0;  // bytes a second
  double peak = 0;       // floating-point operations a second of `type`
};

absl::StatusOr<Roof> MeasureRoof(ComputeType type, bool peak) {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  ASSIGN_OR_RETURN(const CudaStream stream, CudaStream::Create());
  Roof roof;
  if (peak) {
    ASSIGN_OR_RETURN(roof.peak, MeasurePeakFlops(type, device, stream));
  } else {
    ASSIGN_OR_RETURN(roof.read_rate, MeasureReadRate(stream));
  }
  return roof;
}

// A model and `batch` sequences of `context` tokens.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const ForwardBenchOptions& options,
                                                       ComputeType type) {
    auto bench = std::unique_ptr<Bench>(new Bench(options, type));
    RETURN_IF_ERROR(bench->Load());
    return bench;
  }

  // Sequences [first, first + count), `tokens` new ones each behind `context`; `fed`: the ids that
  // the step before drew.
  absl::Status Begin(int first, int count, int context, int tokens, bool fed) {
    std::vector<int32_t> ids, table, rows;
    std::vector<StepSequence> sequences;
    const int blocks = (context + tokens - 1) / model_->limits().block_tokens + 1;
    for (int i = first; i < first + count; ++i) {
      sequences.push_back({.first_token = static_cast<int32_t>(ids.size()),
                           .num_tokens = tokens,
                           .context_tokens = context,
                           .first_block = static_cast<int32_t>(table.size()),
                           .num_blocks = blocks});
      for (int b = 0; b < blocks; ++b) table.push_back(i * blocks_per_sequence_ + b);
      for (int j = 0; j < tokens; ++j) {
        const int64_t id = (int64_t{i} * 31 + j) * 7919 % model_->config().vocab_size;
        ids.push_back(fed ? -1 - (i - first) : static_cast<int32_t>(id));
      }
      rows.push_back(static_cast<int32_t>(ids.size()) - 1);
    }
    samples_.resize(count);
    for (CudaSampleRow& sample : samples_) {
      sample.slot = MakeSampleSlot({.temperature = 0.0f});
      sample.position = context + tokens;
    }
    return model_->Begin({ids, sequences, table, rows}, samples_);
  }
  absl::Status Finish() { return model_->Finish().status(); }

  absl::Status PrefillAll() {
    for (int i = 0; i < options_.batch; ++i) {
      RETURN_IF_ERROR(Begin(i, 1, 0, options_.context, false));
      RETURN_IF_ERROR(Finish());
    }
    return absl::OkStatus();
  }

  // kStepsPerSample decode steps, two of them in flight.
  absl::Status Decode() {
    RETURN_IF_ERROR(Begin(0, options_.batch, options_.context, 1, false));
    for (int step = 1; step < kStepsPerSample; ++step) {
      RETURN_IF_ERROR(Begin(0, options_.batch, options_.context, 1, true));
      RETURN_IF_ERROR(Finish());
    }
    return Finish();
  }
  absl::Status Prefill() {
    RETURN_IF_ERROR(Begin(0, options_.batch, 0, options_.context, false));
    return Finish();
  }

  // Median seconds of `work`.
  absl::StatusOr<double> Measure(absl::Status (Bench::*work)()) {
    std::vector<double> seconds;
    const Clock::time_point start = Clock::now();
    for (int i = 0; SecondsSince(start) < options_.seconds || seconds.size() < 3; ++i) {
      const Clock::time_point before = Clock::now();
      RETURN_IF_ERROR((this->*work)());
      if (i >= 2) seconds.push_back(SecondsSince(before));
    }
    return Median(seconds);
  }

  Json Describe(std::string_view name) const {
    const CudaGptModel::Metrics metrics = model_->metrics();
    return {{"bench", name},
            {"model", model_->config().name},
            {"device", model_->device().name},
            {"dtype", std::string(ToString(type_))},
            {"batch", options_.batch},
            {"context", options_.context},
            {"load_seconds", load_seconds_},
            {"memory_used_gb", static_cast<double>(metrics.memory_used) / 1e9}};
  }

  double LayerElements() const {
    const ModelConfig& config = model_->config();
    const double h = config.hidden_size;
    return config.num_layers * (4.0 * h * h + 2.0 * h * config.ffn_size);
  }
  double EmbeddingElements() const {
    return static_cast<double>(model_->config().vocab_size) * model_->config().hidden_size;
  }
  double KvBytes() const {
    return 2.0 * options_.batch * options_.context * model_->config().num_layers *
           model_->config().hidden_size * static_cast<double>(SizeOf(type_));
  }
  double attention_flops() const {
    return 2.0 * options_.batch * options_.context * options_.context *
           model_->config().hidden_size * model_->config().num_layers;
  }

 private:
  Bench(const ForwardBenchOptions& options, ComputeType type) : options_(options), type_(type) {}

  absl::Status Load() {
    const Clock::time_point begin = Clock::now();
    std::unique_ptr<Checkpoint> checkpoint;
    if (options_.model.empty()) {
      ASSIGN_OR_RETURN(const ModelConfig preset, Preset(options_.preset));
      checkpoint = Checkpoint::Random(preset);
    } else {
      ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(options_.model));
      ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(options_.model, config));
    }
    const int most = checkpoint->config().max_positions;
    if (options_.context < 1 || options_.context > most) {
      return InvalidArgument("--context is {}, want 1 to {}", options_.context, most);
    }
    pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : AvailableCpus());
    blocks_per_sequence_ = options_.context / 16 + 1;
    Progress progress("loading weights");
    ASSIGN_OR_RETURN(
        model_, CudaGptModel::Create({.checkpoint = checkpoint.get(),
                                      .compute_type = type_,
                                      .pool = pool_.get(),
                                      .num_kv_blocks = options_.batch * blocks_per_sequence_,
                                      .max_sequences = options_.batch,
                                      .batch_invariant = options_.batch_invariant,
                                      .progress = [&](double part) { progress.Update(part); }}));
    load_seconds_ = SecondsSince(begin);
    return absl::OkStatus();
  }

  const ForwardBenchOptions options_;
  const ComputeType type_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<CudaGptModel> model_;
  std::vector<CudaSampleRow> samples_;
  int blocks_per_sequence_ = 0;
  double load_seconds_ = 0;
};

}  // namespace

absl::StatusOr<Json> BenchCudaDecode(const ForwardBenchOptions& options) {
  ASSIGN_OR_RETURN(const ComputeType type, ParseComputeType(options.dtype, "cuda", false));
  ASSIGN_OR_RETURN(const Roof roof, MeasureRoof(type, /*peak=*/false));
  ASSIGN_OR_RETURN(const auto bench, Bench::Create(options, type));
  RETURN_IF_ERROR(bench->PrefillAll());
  ASSIGN_OR_RETURN(const double sample, bench->Measure(&Bench::Decode));
  const double seconds = sample / kStepsPerSample;
  const double weight_bytes =
      (bench->LayerElements() + bench->EmbeddingElements()) * static_cast<double>(SizeOf(type));
  const double bytes = weight_bytes + bench->KvBytes();
  Json json = bench->Describe("decode");
  json["milliseconds_per_step"] = seconds * 1e3;
  json["floor_milliseconds"] = bytes / roof.read_rate * 1e3;
  json["tokens_per_second"] = options.batch / seconds;
  json["bytes_per_step"] = bytes;
  json["gb_per_second"] = bytes / seconds / 1e9;
  json["read_gb_per_second"] = roof.read_rate / 1e9;
  json["share_of_read_rate"] = bytes / seconds / roof.read_rate;
  return json;
}

absl::StatusOr<Json> BenchCudaPrefill(const ForwardBenchOptions& options) {
  ASSIGN_OR_RETURN(const ComputeType type, ParseComputeType(options.dtype, "cuda", false));
  ASSIGN_OR_RETURN(const Roof roof, MeasureRoof(type, /*peak=*/true));
  ASSIGN_OR_RETURN(const auto bench, Bench::Create(options, type));
  const double tokens = static_cast<double>(options.batch) * options.context;
  const double flops = 2.0 * tokens * bench->LayerElements() +
                       2.0 * options.batch * bench->EmbeddingElements() + bench->attention_flops();
  ASSIGN_OR_RETURN(const double seconds, bench->Measure(&Bench::Prefill));
  Json json = bench->Describe("prefill");
  json["milliseconds_per_step"] = seconds * 1e3;
  json["tokens_per_second"] = tokens / seconds;
  json["gflop_per_second"] = flops / seconds / 1e9;
  json["peak_gflop_per_second"] = roof.peak / 1e9;
  json["share_of_peak"] = flops / seconds / roof.peak;
  return json;
}

absl::StatusOr<std::string> CudaDeviceName() {
  ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(0));
  return device.name;
}

absl::StatusOr<uint64_t> CudaMemoryUsed() {
  size_t free = 0, total = 0;
  RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free, &total));
  return total - free;
}

absl::StatusOr<Json> PlanCudaTraining(const TrainModelOptions& options, ComputeType type,
                                      int64_t sequences, int64_t length) {
  const CudaTrainMemory plan = PlanCudaTrainMemory(options, type, sequences, length);
  const auto gb = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  return Json{{"master_gb", gb(plan.master)},   {"gradients_gb", gb(plan.gradients)},
              {"moments_gb", gb(plan.moments)}, {"activations_gb", gb(plan.activations)},
              {"logits_gb", gb(plan.logits)},   {"fixed_gb", gb(plan.fixed)},
              {"total_gb", gb(plan.total())}};
}

}  // namespace hanlin::cli
