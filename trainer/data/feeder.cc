// See feeder.h.
#include "trainer/data/feeder.h"

#include <algorithm>

namespace hanlin {
namespace {

// Steps that lie ready: enough to cover a step that takes long to make, such as the first of an
// epoch, which the epoch's plan comes before.
constexpr size_t kAhead = 4;

}  // namespace

BatchOptions EpochOptions(const TrainConfig& config, int64_t epoch) {
  return {.packing = config.data.packing,
          .length_step = LengthStep(config),
          .drop_source = config.data.drop_source,
          .seed = static_cast<uint64_t>(config.seed),
          .epoch = epoch};
}

std::vector<std::span<const uint32_t>> MicroBatches(const TrainConfig& config,
                                                    std::span<const uint32_t> samples, int rank,
                                                    int ranks) {
  const std::span<const uint32_t> share = ShareOf(samples, rank, ranks);
  const auto micro = static_cast<size_t>(
      config.batch.micro > 0 ? config.batch.micro : std::max<size_t>(1, share.size()));
  std::vector<std::span<const uint32_t>> parts;
  for (size_t begin = 0; begin < std::max<size_t>(1, share.size()); begin += micro) {
    parts.push_back(share.subspan(begin, std::min(micro, share.size() - begin)));
  }
  return parts;
}

Feeder::Feeder(const Options& options) : options_(options), thread_([this] { Run(); }) {}

Feeder::~Feeder() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

StepData Feeder::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  StepData step = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return step;
}

void Feeder::Run() {
  int64_t next = options_.step_in_epoch;
  for (int64_t epoch = options_.epoch;; ++epoch, next = 0) {
    const std::vector<SampleIndices> plan =
        PlanEpoch(*options_.config, options_.rules, *options_.samples, epoch);
    for (; next < static_cast<int64_t>(plan.size()); ++next) {
      StepData step = Make(epoch, plan, next);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || ready_.size() < kAhead; });
      if (ending_) return;
      ready_.push_back(std::move(step));
      changed_.notify_all();
    }
  }
}

StepData Feeder::Make(int64_t epoch, const std::vector<SampleIndices>& plan, int64_t number) const {
  const TrainConfig& config = *options_.config;
  const BatchOptions options = EpochOptions(config, epoch);
  StepData step = {.epoch = epoch, .step_in_epoch = number};
  step.epoch_ends = number + 1 == static_cast<int64_t>(plan.size());
  step.samples = plan[number];
  step.labels = CountLabels(options_.rules, options, *options_.samples, step.samples);
  double squares = 0;
  for (const uint32_t index : step.samples) {
    const int64_t length =
        InputLength(options_.rules, TrainedView(options, *options_.samples, index));
    step.tokens += length;
    squares += static_cast<double>(length) * static_cast<double>(length);
  }
  if (step.tokens > 0) step.mean_length = squares / static_cast<double>(step.tokens);
  step.batches = MakeBatches(options, step);
  return step;
}

std::vector<TrainBatch> Feeder::MakeBatches(const BatchOptions& options,
                                            const StepData& step) const {
  const auto parts = MicroBatches(*options_.config, step.samples, options_.rank, options_.ranks);
  std::vector<TrainBatch> batches;
  for (const std::span<const uint32_t> part : parts) {
    double scale = step.labels == 0 ? 0 : 1.0 / static_cast<double>(step.labels);
    if (options_.config->batch.mean == "micro_batch") {
      const int64_t own = CountLabels(options_.rules, options, *options_.samples, part);
      scale = own == 0 ? 0 : 1.0 / (static_cast<double>(own) * parts.size() * options_.ranks);
    }
    batches.push_back(
        MakeBatch(options_.rules, options, *options_.samples, part, static_cast<float>(scale)));
    batches.back().first_row =
        static_cast<uint32_t>((part.data() - step.samples.data()) * options_.rules.sequence_length);
  }
  return batches;
}

}  // namespace hanlin
