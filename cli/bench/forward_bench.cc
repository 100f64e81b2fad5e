// See forward_bench.h.
#include "cli/bench/forward_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "cli/bench/cuda_bench.h"
#include "cli/bench/roofline.h"
#include "cli/output/progress.h"
#include "common/host/host.h"
#include "common/status/status.h"
#include "kernels/base/isa.h"
#include "worker/engine/local.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUpSteps = 2;

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Medians over the steps.
struct Measured {
  double seconds;  // of a step
  double roof;     // what the machine reached beside it
  double share;    // of that
};

// A model and `batch` sequences of `context` tokens; the next token of each is to come.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const ForwardBenchOptions& options) {
    if (options.batch < 1) return InvalidArgument("--batch is {}, want at least 1", options.batch);
    auto bench = std::unique_ptr<Bench>(new Bench(options));
    RETURN_IF_ERROR(bench->Load());
    return bench;
  }

  // The whole prompts.
  absl::Status Prefill() { return RunStep(0, options_.context); }
  // One token behind them.
  absl::Status Decode() { return RunStep(options_.context, 1); }

  // Runs `step` and `roof`, which returns what the machine reaches, in turn until the time is over.
  // `work`: bytes or operations of a step.
  absl::StatusOr<Measured> Measure(absl::Status (Bench::*step)(), double work,
                                   const std::function<double()>& roof) {
    Progress progress("measuring");
    std::vector<double> seconds, roofs, shares;
    const Clock::time_point start = Clock::now();
    double elapsed = 0;
    for (int i = 0; elapsed < options_.seconds || seconds.empty(); ++i) {
      const Clock::time_point before = Clock::now();
      RETURN_IF_ERROR((this->*step)());
      const double took = std::chrono::duration<double>(Clock::now() - before).count();
      const double reached = roof();
      if (i >= kWarmUpSteps) {
        seconds.push_back(took);
        roofs.push_back(reached);
        shares.push_back(work / took / reached);
      }
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      progress.Update(elapsed / options_.seconds);
    }
    return Measured{Median(seconds), Median(roofs), Median(shares)};
  }

  Json Describe(std::string_view name) const {
    return {{"bench", name},
            {"model", model_->config().name},
            {"device", "cpu"},
            {"isa", std::string(IsaName(ActiveIsa()))},
            {"dtype", std::string(ToString(type_))},
            {"threads", pool_->num_threads()},
            {"batch", options_.batch},
            {"context", options_.context}};
  }

  const ModelConfig& config() const { return model_->config(); }
  const GptWeights& weights() const { return model_->weights(); }
  ComputeType type() const { return type_; }
  ThreadPool& pool() { return *pool_; }

  // Bytes of the matrices: all of them are read in every step.
  double MatrixBytes() const { return MatrixElements() * static_cast<double>(SizeOf(type_)); }
  // Elements of the matrices without the word embedding, which a prefill uses for its last token
  // only.
  double LayerElements() const {
    const double h = config().hidden_size;
    return config().num_layers * (4.0 * h * h + 2.0 * h * config().ffn_size);
  }
  double EmbeddingElements() const {
    return static_cast<double>(config().vocab_size) * config().hidden_size;
  }

 private:
  explicit Bench(const ForwardBenchOptions& options) : options_(options) {}

  double MatrixElements() const { return LayerElements() + EmbeddingElements(); }

  absl::Status Load() {
    ASSIGN_OR_RETURN(type_, ParseComputeType(options_.dtype, "cpu", /*scoring=*/false));
    std::unique_ptr<Checkpoint> checkpoint;
    if (options_.model.empty()) {
      ASSIGN_OR_RETURN(const ModelConfig preset, Preset(options_.preset));
      checkpoint = Checkpoint::Random(preset);
    } else {
      ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(options_.model));
      ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(options_.model, config));
    }
    const int room = checkpoint->config().max_positions - 1;
    if (options_.context < 1 || options_.context > room) {
      return InvalidArgument("--context is {}, want 1 to {}", options_.context, room);
    }
    pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : AvailableCpus());
    blocks_per_sequence_ = options_.context / GptModel::block_tokens() + 1;
    Progress progress("loading weights");
    ASSIGN_OR_RETURN(model_,
                     GptModel::Create({.checkpoint = checkpoint.get(),
                                       .compute_type = type_,
                                       .pool = pool_.get(),
                                       .num_kv_blocks = options_.batch * blocks_per_sequence_,
                                       .progress = [&](double part) { progress.Update(part); }}));
    logits_.resize(static_cast<size_t>(options_.batch) * config().vocab_size);
    return absl::OkStatus();
  }

  absl::Status RunStep(int context, int new_tokens) {
    std::vector<int32_t> tokens(static_cast<size_t>(options_.batch) * new_tokens);
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<int32_t>(i * 7919 % config().vocab_size);
    const int blocks = (context + new_tokens - 1) / GptModel::block_tokens() + 1;
    std::vector<int32_t> table;
    std::vector<StepSequence> sequences;
    std::vector<int32_t> rows;
    for (int i = 0; i < options_.batch; ++i) {
      sequences.push_back({.first_token = i * new_tokens,
                           .num_tokens = new_tokens,
                           .context_tokens = context,
                           .first_block = i * blocks,
                           .num_blocks = blocks});
      for (int block = 0; block < blocks; ++block)
        table.push_back(i * blocks_per_sequence_ + block);
      rows.push_back((i + 1) * new_tokens - 1);
    }
    return model_->Run({tokens, sequences, table, rows}, logits_);
  }

  const ForwardBenchOptions options_;
  ComputeType type_ = ComputeType::kFloat32;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<GptModel> model_;
  int blocks_per_sequence_ = 0;
  std::vector<float> logits_;
};

}  // namespace

absl::StatusOr<Json> BenchDecode(const ForwardBenchOptions& options) {
  if (options.device == "cuda") return BenchCudaDecode(options);
  ASSIGN_OR_RETURN(const auto bench, Bench::Create(options));
  RETURN_IF_ERROR(bench->Prefill());
  const Arena& arena = bench->weights().arena;
  const double kv_bytes = 2.0 * options.batch * options.context * bench->config().num_layers *
                          bench->config().hidden_size * static_cast<double>(SizeOf(bench->type()));
  const double bytes = bench->MatrixBytes() + kv_bytes;
  ASSIGN_OR_RETURN(const Measured measured, bench->Measure(&Bench::Decode, bytes, [&] {
    return MeasureReadRate(arena.data(), arena.used(), bench->pool());
  }));
  Json json = bench->Describe("decode");
  json["milliseconds_per_step"] = measured.seconds * 1e3;
  json["tokens_per_second"] = options.batch / measured.seconds;
  json["bytes_per_step"] = bytes;
  json["gb_per_second"] = bytes / measured.seconds / 1e9;
  json["read_gb_per_second"] = measured.roof / 1e9;
  json["share_of_read_rate"] = measured.share;
  return json;
}

absl::StatusOr<Json> BenchPrefill(const ForwardBenchOptions& options) {
  if (options.device == "cuda") return BenchCudaPrefill(options);
  ASSIGN_OR_RETURN(const auto bench, Bench::Create(options));
  const double tokens = static_cast<double>(options.batch) * options.context;
  // Causal attention: a token meets half of the context on average, in QKᵀ and in PV.
  const double attention =
      2.0 * tokens * options.context * bench->config().hidden_size * bench->config().num_layers;
  const double flops = 2.0 * tokens * bench->LayerElements() +
                       2.0 * options.batch * bench->EmbeddingElements() + attention;
  ASSIGN_OR_RETURN(const Measured measured, bench->Measure(&Bench::Prefill, flops, [&] {
    return MeasurePeakFlops(bench->type(), bench->pool()).value_or(0);
  }));
  const bool has_peak = measured.roof > 0;
  Json json = bench->Describe("prefill");
  json["milliseconds_per_step"] = measured.seconds * 1e3;
  json["tokens_per_second"] = tokens / measured.seconds;
  json["gflop_per_second"] = flops / measured.seconds / 1e9;
  json["peak_gflop_per_second"] = has_peak ? Json(measured.roof / 1e9) : Json(nullptr);
  json["share_of_peak"] = has_peak ? Json(measured.share) : Json(nullptr);
  return json;
}

}  // namespace hanlin::cli
