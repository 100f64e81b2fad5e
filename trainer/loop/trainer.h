// The training loop: one rank's part of a run from its recipe to its last checkpoint.
//
// A step: the plan's samples, this replica's share in micro-batches forward and backward, gradients
// summed over the replicas, the norm, AdamW. What any rank knows and all must agree on (a signal to
// stop) travels with the loss of the step. The batches come from a thread that is ahead (feeder.h).
//
// Thread safety: one thread at a time; `stop_requested` may be called at any time.
#ifndef HANLIN_TRAINER_LOOP_TRAINER_H_
#define HANLIN_TRAINER_LOOP_TRAINER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "model/train/train_model.h"
#include "tokenizer_svc/core/tokenizer.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/data/feeder.h"
#include "trainer/data/samples.h"
#include "trainer/loop/observer.h"

namespace hanlin {

// Floating-point operations that training needs for a token of a sequence of `length`:
// 6 (L (4 h^2 + 2 h f) + V h) + 6 L length h; recomputation does not count.
double FlopsPerToken(const ModelConfig& config, double length);

struct TrainerOptions {
  TrainConfig config;
  Communicator* tensor = nullptr;  // not owned; null: alone
  Communicator* data = nullptr;
  int device = 0;                        // ordinal of this rank's GPU, where the recipe wants one
  std::function<bool()> stop_requested;  // SIGTERM: save and end
  Observer* observer = nullptr;          // of the rank that writes; null on others
};

struct RunSummary {
  RunState state;
  std::string end;  // "finished", "stopped by a signal", "no better evaluation in 3"
  double last_loss = 0;
};

class Trainer {
 public:
  // Loads model, tokenizer, data and, if asked, a checkpoint.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const TrainerOptions& options,
                                                         ThreadPool& pool);
  absl::StatusOr<RunSummary> Run();

  const TrainModel& model() const { return *model_; }
  int64_t total_steps() const { return total_steps_; }

 private:
  Trainer(const TrainerOptions& options, ThreadPool& pool)
      : options_(options), config_(options_.config), pool_(pool) {}

  struct StepOutcome {
    double loss = 0;
    double norm = 0;
    int64_t epoch = 0;
    int64_t labels = 0;
    int64_t tokens = 0;  // of input, all replicas
    double flops = 0;
    bool stop = false;
    bool skipped = false;
  };

  absl::Status LoadData(const ModelConfig& model);
  absl::Status LoadPrompts(const ModelConfig& model);
  absl::Status WaitForCache();
  absl::Status MeasurePeak();
  absl::Status MakeModel(const ModelConfig& model, const Checkpoint& weights);
  void ReportMemoryPlan(const std::vector<SampleIndices>& plan);
  absl::StatusOr<std::string> FindCheckpoint(const ModelConfig& model);
  absl::Status Resume(const std::string& checkpoint);
  absl::StatusOr<StepOutcome> Step(const StepData& data);
  absl::StatusOr<double> ForwardBackward(const StepData& data);
  absl::Status AfterStep(const StepOutcome& outcome, bool epoch_ends);
  absl::Status EvaluateNow(bool* improved);
  absl::Status ScoreTargets(EvaluationResult* result);
  absl::Status TakeSamples();
  absl::Status Save(bool best);
  void ReportStep(const StepOutcome& outcome);
  void Message(const std::string& text);
  bool Due(int64_t every, bool epoch_ends) const;
  int dp_rank() const { return options_.data == nullptr ? 0 : options_.data->rank(); }
  int dp_size() const { return options_.data == nullptr ? 1 : options_.data->size(); }

  const TrainerOptions options_;
  const TrainConfig& config_;
  ThreadPool& pool_;
  SampleRules rules_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SampleStore train_, valid_;
  std::vector<std::vector<int32_t>> prompts_;  // of evaluation.samples
  std::unique_ptr<TrainModel> model_;
  std::unique_ptr<CheckpointWriter> writer_;  // of the rank that writes
  RunState state_;
  int64_t total_steps_ = 0;
  int64_t saved_step_ = -1;
  bool patience_over_ = false;
  double peak_flops_ = 0;
  // Since the last report.
  double report_time_ = 0;
  int64_t report_step_ = 0, report_tokens_ = 0;
  double report_flops_ = 0, report_wait_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_TRAINER_LOOP_TRAINER_H_
