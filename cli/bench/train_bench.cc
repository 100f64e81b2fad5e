// See train_bench.h.
#include "cli/bench/train_bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "cli/bench/cuda_bench.h"
#include "cli/bench/roofline.h"
#include "cli/output/progress.h"
#include "common/host/host.h"
#include "common/status/status.h"
#include "model/train/cuda_train.h"
#include "trainer/loop/trainer.h"
#include "worker/engine/model_rank.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUpSteps = 2;
constexpr int kLeastSteps = 3;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const TrainBenchOptions& options) {
    auto bench = std::unique_ptr<Bench>(new Bench(options));
    RETURN_IF_ERROR(bench->Load());
    return bench;
  }

  absl::StatusOr<Json> Run() {
    Progress progress("training");
    std::vector<double> seconds;
    const Clock::time_point start = Clock::now();
    for (int i = 0; SecondsSince(start) < options_.seconds || i < kWarmUpSteps + kLeastSteps; ++i) {
      const Clock::time_point before = Clock::now();
      RETURN_IF_ERROR(Step(i));
      if (i >= kWarmUpSteps) seconds.push_back(SecondsSince(before));
      progress.Update(std::min(1.0, SecondsSince(start) / options_.seconds));
    }
    const double step = Median(seconds);
    const double tokens = 1.0 * options_.batch * options_.context * options_.accumulate;
    Json json = {{"bench", "train"},
                 {"model", config_.name},
                 {"vocab_size", config_.vocab_size},
                 {"device", options_.device},
                 {"dtype", std::string(ToString(type_))},
                 {"batch", options_.batch},
                 {"context", options_.context},
                 {"accumulate", options_.accumulate},
                 {"recompute", options_.recompute},
                 {"dropout", options_.dropout},
                 {"steps", seconds.size()},
                 {"loss", loss_},
                 {"milliseconds_per_step", step * 1e3},
                 {"tokens_per_second", tokens / step}};
    if (peak_.has_value()) {
      json["peak_gflop_per_second"] = *peak_ / 1e9;
      json["mfu"] = FlopsPerToken(config_, options_.context) * tokens / step / *peak_;
    }
    if (options_.device == "cuda") {
      ASSIGN_OR_RETURN(json["device"], CudaDeviceName());
      ASSIGN_OR_RETURN(json["memory_plan"],
                       PlanCudaTraining(train_, type_, options_.batch, options_.context));
      ASSIGN_OR_RETURN(const uint64_t used, CudaMemoryUsed());
      json["memory_used_gb"] = static_cast<double>(used) / 1e9;
    } else {
      rusage usage = {};
      getrusage(RUSAGE_SELF, &usage);
      json["memory_used_gb"] = static_cast<double>(usage.ru_maxrss) * 1024 / 1e9;
    }
    return json;
  }

 private:
  explicit Bench(const TrainBenchOptions& options) : options_(options) {}

  absl::Status Load() {
    ASSIGN_OR_RETURN(config_, options_.model.empty() ? Preset(options_.preset)
                                                     : LoadModelConfig(options_.model));
    if (options_.vocab_size > 0) config_.vocab_size = options_.vocab_size;
    if (options_.context < 1 || options_.context > config_.max_positions) {
      return InvalidArgument("--context is {}, want 1 to {}", options_.context,
                             config_.max_positions);
    }
    const bool cuda = options_.device == "cuda";
    ASSIGN_OR_RETURN(type_, ParseComputeType(options_.dtype, options_.device,
                                             /*scoring=*/!cuda));
    pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : AvailableCpus());
    if (cuda) {
      ASSIGN_OR_RETURN(peak_, MeasureCudaPeak({.type = type_}));
    } else {
      peak_ = MeasurePeakFlops(type_, *pool_);
    }
    train_.config = config_;
    train_.operands = type_;
    train_.recompute = options_.recompute == "full"        ? Recompute::kFull
                       : options_.recompute == "selective" ? Recompute::kSelective
                                                           : Recompute::kNone;
    const auto rate = static_cast<float>(options_.dropout);
    train_.dropout = {rate, rate, rate};
    train_.weight_decay.assign(AllTensors(config_).size(), 0.01f);
    ASSIGN_OR_RETURN(model_, cuda ? MakeCudaTrainModel(train_, {.type = type_})
                                  : MakeCpuTrainModel(train_, *pool_));
    RETURN_IF_ERROR(FillParameters());
    MakeBatch();
    return absl::OkStatus();
  }

  // Normal numbers of ModelScope's deviation, the same ones over and over; gains are 1.
  absl::Status FillParameters() {
    constexpr float kDeviation = 0.02f;
    std::vector<float> numbers(1 << 20), ones(config_.hidden_size, 1.0f);
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(0, kDeviation);
    for (float& number : numbers) number = normal(engine);
    for (const ParameterSlot& slot : model_->layout().slots()) {
      const TensorRole role = slot.id.role;
      const bool gain = role == TensorRole::kLn1Weight || role == TensorRole::kLn2Weight ||
                        role == TensorRole::kFinalLnWeight;
      const std::vector<float>& source = gain ? ones : numbers;
      for (int64_t done = 0; done < slot.shape.size();) {
        const auto count =
            std::min<int64_t>(slot.shape.size() - done, static_cast<int64_t>(source.size()));
        RETURN_IF_ERROR(model_->WriteState(TrainState::kParameters, slot.offset + done,
                                           std::span(source).first(count)));
        done += count;
      }
    }
    return absl::OkStatus();
  }

  void MakeBatch() {
    batch_.sequences = options_.batch;
    batch_.length = options_.context;
    std::mt19937 engine(2);
    const int64_t tokens = batch_.sequences * batch_.length;
    for (int64_t t = 0; t < tokens; ++t) {
      batch_.tokens.push_back(static_cast<int32_t>(engine() % config_.vocab_size));
      batch_.labels.push_back(static_cast<int32_t>(engine() % config_.vocab_size));
      batch_.positions.push_back(static_cast<int32_t>(t % batch_.length));
    }
    batch_.weights.assign(tokens, 1.0f / static_cast<float>(tokens * options_.accumulate));
    losses_.resize(tokens);
  }

  absl::Status Step(int step) {
    loss_ = 0;
    for (int i = 0; i < options_.accumulate; ++i) {
      RETURN_IF_ERROR(model_->ForwardBackward(batch_, step * options_.accumulate + i, losses_));
      for (size_t t = 0; t < losses_.size(); ++t) loss_ += double{losses_[t]} * batch_.weights[t];
    }
    RETURN_IF_ERROR(model_->ReduceGradients());
    ASSIGN_OR_RETURN(const double norm, model_->GradientNorm());
    const double scale = std::min(1.0, 1.0 / (norm + 1e-6));
    RETURN_IF_ERROR(model_->Update(1e-4, static_cast<float>(scale), step + 1));
    model_->ZeroGradients();
    return absl::OkStatus();
  }

  const TrainBenchOptions options_;
  ModelConfig config_;
  ComputeType type_ = ComputeType::kFloat32;
  TrainModelOptions train_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TrainModel> model_;
  TrainBatch batch_;
  std::vector<float> losses_;
  double loss_ = 0;
  std::optional<double> peak_;  // operations a second; of some processors it is not known
};

}  // namespace

absl::StatusOr<Json> BenchTrain(const TrainBenchOptions& options) {
  ASSIGN_OR_RETURN(const auto bench, Bench::Create(options));
  return bench->Run();
}

}  // namespace hanlin::cli
