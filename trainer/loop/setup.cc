// How a Trainer comes to be: data, model, the checkpoint to go on from.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "common/io/file.h"
#include "common/status/status.h"
#include "kernels/gemm/cpu/matmul.h"
#include "model/checkpoint/checkpoint.h"
#include "model/train/cuda_train.h"
#include "tokenizer_svc/core/loader.h"
#include "trainer/data/dataset.h"
#include "trainer/loop/trainer.h"

namespace hanlin {
namespace {

// Matrix products of this size run at the machine's rate: what MFU is a share of.
double MeasurePeakFlops(ComputeType operands, ThreadPool& pool) {
  constexpr int64_t kSize = 512;
  std::vector<float> a(kSize * kSize, 1.0f), c(a.size());
  MatMulParams p = {.m = kSize, .n = kSize, .k = kSize, .a = a.data(), .a_stride = kSize};
  p.b = a.data();
  p.b_stride = kSize;
  p.c = c.data();
  p.c_stride = kSize;
  p.type = operands;
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    MatMul(p, pool);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    best = std::min(best, taken.count());
  }
  return 2.0 * kSize * kSize * kSize / best;
}

bool Matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    for (size_t i = 0; i <= name.size(); ++i) {
      if (Matches(pattern.substr(1), name.substr(i))) return true;
    }
    return false;
  }
  return !name.empty() && pattern[0] == name[0] && Matches(pattern.substr(1), name.substr(1));
}

bool IsMatrix(const ModelConfig& config, TensorRole role) {
  return LocalShape(config, role, 1).cols > 1;
}

ComputeType Operands(const TrainConfig& config) {
  const auto& compute = config.compute;
  const bool cuda = compute.device == "cuda";
  return compute.dtype == "bfloat16" || (compute.dtype == "auto" && cuda) ? ComputeType::kBFloat16
                                                                          : ComputeType::kFloat32;
}

absl::Status SetGroups(const TrainConfig& config, TrainModelOptions* options) {
  std::vector<bool> used(config.optimizer.freeze.size());
  for (const TensorId id : AllTensors(options->config)) {
    const bool decays = config.optimizer.decay == "all" || IsMatrix(options->config, id.role);
    options->weight_decay.push_back(decays ? static_cast<float>(config.optimizer.weight_decay)
                                           : 0.0f);
    bool frozen = false;
    for (size_t i = 0; i < used.size(); ++i) {
      if (!Matches(config.optimizer.freeze[i], ToString(id))) continue;
      frozen = true;
      used[i] = true;
    }
    options->frozen.push_back(frozen);
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    return InvalidArgument("optimizer.freeze: no tensor is called '{}', names look like '{}'",
                           config.optimizer.freeze[i],
                           ToString(TensorId{TensorRole::kMlpUpWeight, 3}));
  }
  if (std::find(options->frozen.begin(), options->frozen.end(), false) == options->frozen.end()) {
    return InvalidArgument("optimizer.freeze leaves nothing to train");
  }
  return absl::OkStatus();
}

}  // namespace

double FlopsPerToken(const ModelConfig& config, double length) {
  const double h = config.hidden_size, layers = config.num_layers;
  const double matrices = layers * (4 * h * h + 2 * h * config.ffn_size) + config.vocab_size * h;
  return 6 * matrices + 6 * layers * length * h;
}

absl::Status Trainer::LoadData(const ModelConfig& model) {
  const std::string& folder = config_.tokenizer.empty() ? config_.model : config_.tokenizer;
  ASSIGN_OR_RETURN(tokenizer_, LoadTokenizer(folder));
  if (model.end_token_ids.empty()) {
    return FailedPrecondition("{} has no end token, which separates samples", config_.model);
  }
  rules_ = {config_.data.sequence_length, model.end_token_ids[0], config_.data.loss == "all"};
  if (rules_.sequence_length - 1 > model.max_positions) {
    return InvalidArgument(
        "data.sequence_length is {}, want at most {}: the model has {} positions",
        rules_.sequence_length, model.max_positions + 1, model.max_positions);
  }
  RETURN_IF_ERROR(LoadPrompts(model));
  DataSetOptions options;
  options.files = config_.data.train;
  options.rules = config_.data;
  options.vocab_size = model.vocab_size;
  options.report = [this](const std::string& text) { Message(text); };
  options.write_cache = options_.observer != nullptr;
  if (!options.write_cache) RETURN_IF_ERROR(WaitForCache());
  ASSIGN_OR_RETURN(train_, LoadSamples(options, *tokenizer_, pool_));
  int64_t cut = 0;
  for (size_t i = 0; i < train_.size(); ++i) {
    const SampleView sample = train_[i];
    cut += static_cast<int64_t>(sample.source.size() + sample.target.size()) + 1 >
                   rules_.sequence_length
               ? 1
               : 0;
  }
  Message(fmt::format("{} training samples, {} of them cut to data.sequence_length {}",
                      train_.size(), cut, rules_.sequence_length));
  if (!config_.data.valid.empty()) {
    options.files = config_.data.valid;
    ASSIGN_OR_RETURN(valid_, LoadSamples(options, *tokenizer_, pool_));
    Message(fmt::format("{} validation samples", valid_.size()));
  }
  return options.write_cache ? WaitForCache() : absl::OkStatus();
}

absl::Status Trainer::LoadPrompts(const ModelConfig& model) {
  for (const std::string& text : config_.evaluation.samples) {
    ASSIGN_OR_RETURN(Encoding encoding,
                     tokenizer_->EncodePrompt(PrepareSource(config_.data, text)));
    const size_t size = encoding.ids.size();
    if (size == 0 || static_cast<int64_t>(size) > model.max_positions) {
      return InvalidArgument("evaluation.samples: '{}' has {} tokens, want 1 to {}", text, size,
                             model.max_positions);
    }
    prompts_.push_back(std::move(encoding.ids));
  }
  return absl::OkStatus();
}

// The rank that writes comes here when its data are in the cache, the others before they look
// there. Everyone of a tensor-parallel group waits for its rank 0, who waits for the rank that
// writes.
absl::Status Trainer::WaitForCache() {
  if (config_.data.cache.empty()) return absl::OkStatus();
  constexpr absl::Duration kTokenizing = absl::Hours(2);
  for (Communicator* const group : {options_.data, options_.tensor}) {
    if (group != nullptr) RETURN_IF_ERROR(group->WaitForAll(kTokenizing));
  }
  return absl::OkStatus();
}

absl::Status Trainer::MakeModel(const ModelConfig& model, const Checkpoint& weights) {
  TrainModelOptions options = {.config = model};
  options.tensor = options_.tensor;
  options.data = options_.data;
  options.zero = config_.parallel.zero;
  options.recompute = config_.compute.recompute == "full"        ? Recompute::kFull
                      : config_.compute.recompute == "selective" ? Recompute::kSelective
                                                                 : Recompute::kNone;
  const bool cuda = config_.compute.device == "cuda";
  options.operands = Operands(config_);
  options.dropout = {static_cast<float>(config_.dropout.embedding),
                     static_cast<float>(config_.dropout.attention),
                     static_cast<float>(config_.dropout.hidden)};
  options.seed = static_cast<uint64_t>(config_.seed);
  options.adamw = {config_.optimizer.beta1, config_.optimizer.beta2, config_.optimizer.eps};
  RETURN_IF_ERROR(SetGroups(config_, &options));
  if (cuda) {
    ASSIGN_OR_RETURN(
        model_, MakeCudaTrainModel(options, {.type = options.operands,
                                             .device = options_.device,
                                             .timeout = absl::Seconds(config_.parallel.timeout)}));
  } else {
    ASSIGN_OR_RETURN(model_, MakeCpuTrainModel(options, pool_));
  }
  Message(fmt::format("{} parameters, {} on this rank", model.num_parameters(),
                      model_->layout().size()));
  return LoadParameters(weights, *model_);
}

// What a step of this rank takes at most, by the plan of the first epoch.
void Trainer::ReportMemoryPlan(const std::vector<SampleIndices>& plan) {
  const BatchOptions batch = EpochOptions(config_, 0);
  BatchShape largest;
  for (const SampleIndices& step : plan) {
    for (const auto part : MicroBatches(config_, step, dp_rank(), dp_size())) {
      const BatchShape shape = ShapeOf(rules_, batch, train_, part);
      if (shape.tokens() > largest.tokens()) largest = shape;
    }
  }
  const auto activations = [&](Recompute recompute) {
    return model_->ActivationBytes(recompute, largest.sequences, largest.length);
  };
  const uint64_t weights = 4 * model_->layout().size();
  const TrainModel::Range owned = model_->OwnedRange();
  const uint64_t moments = 8 * (owned.end - owned.begin);
  const uint64_t chosen = activations(model_->options().recompute);
  Message(fmt::format(
      "memory in MiB: parameters {0}, gradients {0}, moments {1}, activations {2} for up to {3} "
      "tokens at once (compute.recompute none {4}, selective {5}, full {6}); {7} besides the data",
      weights >> 20, moments >> 20, chosen >> 20, largest.tokens(),
      activations(Recompute::kNone) >> 20, activations(Recompute::kSelective) >> 20,
      activations(Recompute::kFull) >> 20, (2 * weights + moments + chosen) >> 20));
}

// The folder to go on from, of this model; empty: a run from the start.
absl::StatusOr<std::string> Trainer::FindCheckpoint(const ModelConfig& model) {
  if (config_.resume == "never") return "";
  std::string folder = config_.resume;
  if (folder == "auto") {
    ASSIGN_OR_RETURN(const auto newest, NewestCheckpoint(config_.output));
    if (!newest.has_value()) return "";
    folder = *newest;
  }
  RETURN_IF_ERROR(ReadRunState(folder, model).status());
  return folder;
}

absl::Status Trainer::Resume(const std::string& checkpoint) {
  if (checkpoint.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(state_, LoadCheckpoint(checkpoint, *model_));
  saved_step_ = state_.step;
  Message(
      fmt::format("going on from {}: step {}, epoch {}", checkpoint, state_.step, state_.epoch));
  if (state_.recipe != Describe(config_)) {
    Message("the recipe differs from that of the checkpoint; the new one counts");
  }
  return absl::OkStatus();
}

absl::Status Trainer::MeasurePeak() {
  if (config_.compute.device != "cuda") {
    peak_flops_ = MeasurePeakFlops(Operands(config_), pool_);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(peak_flops_,
                   MeasureCudaPeak({.type = Operands(config_), .device = options_.device}));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const TrainerOptions& options,
                                                         ThreadPool& pool) {
  std::unique_ptr<Trainer> trainer(new Trainer(options, pool));
  const TrainConfig& config = trainer->config_;
  ASSIGN_OR_RETURN(const ModelConfig model, LoadModelConfig(config.model));
  RETURN_IF_ERROR(CheckTp(model, options.tensor == nullptr ? 1 : options.tensor->size()));
  std::error_code error;
  std::filesystem::create_directories(config.output, error);
  if (error) return InvalidArgument("cannot create {}: {}", config.output, error.message());
  // What is wrong with these is known at once; data may take long.
  if (options.observer != nullptr) RETURN_IF_ERROR(trainer->MeasurePeak());
  std::unique_ptr<Checkpoint> weights;
  if (config.init == "random") {
    weights = Checkpoint::Random(model, static_cast<uint64_t>(config.seed));
  } else {
    ASSIGN_OR_RETURN(weights, Checkpoint::Open(config.model, model));
  }
  ASSIGN_OR_RETURN(const std::string checkpoint, trainer->FindCheckpoint(model));
  RETURN_IF_ERROR(trainer->LoadData(model));
  RETURN_IF_ERROR(trainer->MakeModel(model, *weights));
  weights.reset();
  RETURN_IF_ERROR(trainer->Resume(checkpoint));
  if (options.observer != nullptr) {
    trainer->writer_ = std::make_unique<CheckpointWriter>(
        CheckpointOptions{config.output, config.tokenizer.empty() ? config.model : config.tokenizer,
                          model, config.checkpoint.dtype == "bfloat16", config.checkpoint.keep});
  }
  const std::vector<SampleIndices> plan = PlanEpoch(config, trainer->rules_, trainer->train_, 0);
  const auto steps = static_cast<int64_t>(plan.size());
  if (options.observer != nullptr) trainer->ReportMemoryPlan(plan);
  trainer->total_steps_ =
      config.run.max_steps > 0
          ? config.run.max_steps
          : std::max<int64_t>(1, std::llround(config.run.epochs * static_cast<double>(steps)));
  return trainer;
}

}  // namespace hanlin
