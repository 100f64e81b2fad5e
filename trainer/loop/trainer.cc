// The loop of trainer.h.
#include "trainer/loop/trainer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "common/status/status.h"
#include "model/train/collectives.h"
#include "trainer/schedule/schedule.h"

namespace hanlin {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t PeakResidentBytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) << 10;
}

std::string FirstOf(const SampleIndices& samples) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(samples.size(), 8); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", samples[i]);
  }
  return samples.size() > 8 ? text + ", …" : text;
}

}  // namespace

void Trainer::Message(const std::string& text) {
  if (options_.observer != nullptr) options_.observer->OnMessage(text);
}

// This replica's micro-batches. Returns the sum of weight x loss.
absl::StatusOr<double> Trainer::ForwardBackward(const StepData& data) {
  double loss = 0;
  for (const TrainBatch& batch : data.batches) {
    if (&batch == &data.batches.back()) model_->ReduceInNextBackward();
    std::vector<float> losses(batch.tokens.size());
    RETURN_IF_ERROR(model_->ForwardBackward(batch, static_cast<uint32_t>(state_.step), losses));
    for (size_t t = 0; t < losses.size(); ++t) loss += double{batch.weights[t]} * losses[t];
  }
  return loss;
}

absl::StatusOr<Trainer::StepOutcome> Trainer::Step(const StepData& data) {
  StepOutcome outcome = {.epoch = data.epoch, .labels = data.labels, .tokens = data.tokens};
  outcome.flops =
      FlopsPerToken(model_->options().config, data.mean_length) * static_cast<double>(data.tokens);
  model_->ZeroGradients();
  ASSIGN_OR_RETURN(const double loss, ForwardBackward(data));
  RETURN_IF_ERROR(model_->ReduceGradients());
  double shared[] = {loss, options_.stop_requested && options_.stop_requested() ? 1.0 : 0.0};
  RETURN_IF_ERROR(SumOverRanks(options_.data, shared));
  outcome.loss = shared[0];
  RETURN_IF_ERROR(SumOverRanks(options_.tensor, {&shared[1], 1}));
  outcome.stop = shared[1] > 0;
  ASSIGN_OR_RETURN(outcome.norm, model_->GradientNorm());
  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.norm)) {
    const std::string what =
        fmt::format("step {}: loss {}, gradient norm {}; epoch {}, samples {}", state_.step + 1,
                    outcome.loss, outcome.norm, data.epoch, FirstOf(data.samples));
    if (config_.run.on_nan == "stop") return absl::AbortedError(what);
    Message(what + "; skipped");
    outcome.skipped = true;
    return outcome;
  }
  const double clip = config_.optimizer.clip;
  const double scale = clip > 0 ? std::min(1.0, clip / (outcome.norm + 1e-6)) : 1.0;
  RETURN_IF_ERROR(model_->Update(LearningRate(config_, state_.step, total_steps_),
                                 static_cast<float>(scale), state_.updates + 1));
  return outcome;
}

bool Trainer::Due(int64_t every, bool epoch_ends) const {
  return every == 0 ? epoch_ends : state_.step % every == 0;
}

absl::Status Trainer::Save(bool best) {
  if (saved_step_ == state_.step && !best) return absl::OkStatus();
  const bool keep = writer_ != nullptr;
  Snapshot snapshot;
  state_.recipe = Describe(config_);
  snapshot.state = state_;
  snapshot.best = best;
  RETURN_IF_ERROR(GatherTensors(*model_, TrainState::kParameters, keep, &snapshot.parameters));
  RETURN_IF_ERROR(GatherTensors(*model_, TrainState::kMoment1, keep, &snapshot.moment1));
  RETURN_IF_ERROR(GatherTensors(*model_, TrainState::kMoment2, keep, &snapshot.moment2));
  saved_step_ = state_.step;
  return keep ? writer_->Start(std::move(snapshot)) : absl::OkStatus();
}

void Trainer::ReportStep(const StepOutcome& outcome) {
  report_tokens_ += outcome.tokens;
  report_flops_ += outcome.flops;
  const bool due = state_.step % config_.log.every == 0 || state_.step == total_steps_;
  if (options_.observer == nullptr || !due) return;
  const double now = Now(), seconds = std::max(1e-9, now - report_time_);
  const auto steps = static_cast<double>(std::max<int64_t>(1, state_.step - report_step_));
  StepReport report = {.step = state_.step, .total_steps = total_steps_, .epoch = outcome.epoch};
  report.loss = outcome.loss;
  report.learning_rate = LearningRate(config_, state_.step - 1, total_steps_);
  report.gradient_norm = outcome.norm;
  report.tokens_per_second = static_cast<double>(report_tokens_) / seconds;
  const int ranks = dp_size() * (options_.tensor == nullptr ? 1 : options_.tensor->size());
  report.mfu = report_flops_ / seconds / (peak_flops_ * ranks);
  report.data_wait_seconds = report_wait_;
  report.memory_bytes = ResidentBytes();
  // The kernel counts the two apart and a little late.
  report.peak_memory_bytes = std::max(PeakResidentBytes(), report.memory_bytes);
  report.seconds_left = seconds / steps * static_cast<double>(total_steps_ - state_.step);
  options_.observer->OnStep(report);
  report_time_ = now;
  report_step_ = state_.step;
  report_tokens_ = 0;
  report_flops_ = 0;
  report_wait_ = 0;
}

absl::Status Trainer::AfterStep(const StepOutcome& outcome, bool epoch_ends) {
  const bool last = state_.step >= total_steps_;
  ReportStep(outcome);
  bool best = false;
  if (!outcome.stop && (last || Due(config_.evaluation.every, epoch_ends))) {
    if (valid_.size() > 0) RETURN_IF_ERROR(EvaluateNow(&best));
    RETURN_IF_ERROR(TakeSamples());
  }
  if (best || last || outcome.stop || patience_over_ || Due(config_.checkpoint.every, epoch_ends)) {
    RETURN_IF_ERROR(Save(best));
  }
  return absl::OkStatus();
}

absl::StatusOr<RunSummary> Trainer::Run() {
  RunSummary summary = {.end = "finished"};
  Feeder feeder(
      {&config_, rules_, &train_, dp_rank(), dp_size(), state_.epoch, state_.step_in_epoch});
  report_time_ = Now();
  report_step_ = state_.step;
  bool stop = false;
  while (state_.step < total_steps_ && !stop && !patience_over_) {
    const double asked = Now();
    const StepData data = feeder.Next();
    report_wait_ += Now() - asked;
    ASSIGN_OR_RETURN(const StepOutcome outcome, Step(data));
    summary.last_loss = outcome.loss;
    stop = outcome.stop;
    ++state_.step;
    state_.updates += outcome.skipped ? 0 : 1;
    state_.tokens += outcome.labels;
    state_.epoch = data.epoch + (data.epoch_ends ? 1 : 0);
    state_.step_in_epoch = data.epoch_ends ? 0 : data.step_in_epoch + 1;
    RETURN_IF_ERROR(AfterStep(outcome, data.epoch_ends));
  }
  if (stop) summary.end = "stopped by a signal";
  if (patience_over_) {
    summary.end = fmt::format("no better evaluation in {}", config_.evaluation.patience);
  }
  if (writer_ != nullptr) RETURN_IF_ERROR(writer_->Wait());
  summary.state = state_;
  return summary;
}

}  // namespace hanlin
