// Makes the batches of the steps to come on a thread of its own, so that the model does not wait
// for them. What comes out is a function of (samples, recipe, place in the run, rank): a run that
// goes on from a checkpoint gets what it would have got. Next is for one thread.
#ifndef HANLIN_TRAINER_DATA_FEEDER_H_
#define HANLIN_TRAINER_DATA_FEEDER_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/data/batches.h"
#include "trainer/data/samples.h"

namespace hanlin {

// An optimizer step.
struct StepData {
  int64_t epoch = 0;
  int64_t step_in_epoch = 0;
  bool epoch_ends = false;          // with this step
  SampleIndices samples;            // of all replicas, as the next three
  int64_t labels = 0;               // that count
  int64_t tokens = 0;               // of input, padding not counted
  double mean_length = 0;           // of the sample that a token is in
  std::vector<TrainBatch> batches;  // this replica's micro-batches, at least one
};

class Feeder {
 public:
  struct Options {
    const TrainConfig* config;  // not owned, as `samples`
    SampleRules rules;
    const SampleStore* samples;  // at least one
    int rank = 0;                // replica
    int ranks = 1;
    int64_t epoch = 0;  // where the run stands
    int64_t step_in_epoch = 0;
  };
  explicit Feeder(const Options& options);
  ~Feeder();
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  // The next step; there is always one.
  StepData Next();

 private:
  void Run();
  StepData Make(int64_t epoch, const std::vector<SampleIndices>& plan, int64_t step) const;
  std::vector<TrainBatch> MakeBatches(const BatchOptions& options, const StepData& step) const;

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StepData> ready_;
  bool ending_ = false;
  std::thread thread_;  // after what it uses
};

// How a recipe's batches are made in an epoch.
BatchOptions EpochOptions(const TrainConfig& config, int64_t epoch);

// The micro-batches of this replica's part of a step, as ranges of `samples`; at least one, perhaps
// empty.
std::vector<std::span<const uint32_t>> MicroBatches(const TrainConfig& config,
                                                    std::span<const uint32_t> samples, int rank,
                                                    int ranks);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_DATA_FEEDER_H_
