// Checkpoints of a run. OUTPUT/step-N is a model folder that the worker serves as it is (Hugging
// Face layout), plus what the run needs to go on:
//
//   config.json, tokenizer files, model.safetensors      weights in checkpoint.dtype
//   trainer/optimizer.safetensors   m.NAME, v.NAME, and p.NAME when the weights above are rounded:
//                                   whole canonical tensors in fp32, whatever the parallelism
//   trainer/state.json              RunState
//   OUTPUT/best, OUTPUT/latest      symbolic links
//
// A folder is written under a temporary name, synced and renamed: at any moment, whatever is killed
// or full, every step-N that exists is complete. Since tensors are whole, any tensor- and
// data-parallel degree reads what another wrote; the random numbers are functions of (seed, step),
// so RunState holds all of a run's state.
//
// Thread safety: one thread at a time; the files are written by a thread of the writer's own.
#ifndef HANLIN_TRAINER_CHECKPOINT_CHECKPOINT_H_
#define HANLIN_TRAINER_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/train/train_model.h"

namespace hanlin {

struct RunState {
  int64_t step = 0;           // optimizer steps done
  int64_t updates = 0;        // of them, those that were not skipped
  int64_t epoch = 0;          // 0-based, of the next step
  int64_t step_in_epoch = 0;  // of the next step
  int64_t tokens = 0;         // counted labels so far
  double best_metric = std::numeric_limits<double>::infinity();
  int64_t best_step = 0;
  int64_t evaluations_since_best = 0;
  std::string recipe;  // Describe(config)
  bool operator==(const RunState&) const = default;
};

// One of the model's arrays, whole, in the order of ParameterLayout(config, 1).slots().
using WholeTensors = std::vector<std::vector<float>>;

// Collective over both communicators of the model. Only `keep` receives the tensors; the others
// take part. -0 becomes 0.
absl::Status GatherTensors(const TrainModel& model, TrainState state, bool keep,
                           WholeTensors* tensors);

struct Snapshot {
  RunState state;
  bool best = false;
  WholeTensors parameters, moment1, moment2;
};

struct CheckpointOptions {
  std::string output;
  std::string tokenizer_directory;  // whose files are copied
  ModelConfig config;
  bool bfloat16 = false;
  int64_t keep = 2;
};

// Writes snapshots in the background, one at a time. For the rank that writes.
class CheckpointWriter {
 public:
  explicit CheckpointWriter(CheckpointOptions options) : options_(std::move(options)) {}
  ~CheckpointWriter();

  // Waits for the snapshot before; its error is returned.
  absl::Status Start(Snapshot snapshot);
  absl::Status Wait();

 private:
  const CheckpointOptions options_;
  std::thread thread_;
  absl::Status status_;  // of the last snapshot; read after joining
};

// Writes one snapshot, then removes what retention does not keep.
absl::Status WriteCheckpoint(const CheckpointOptions& options, const Snapshot& snapshot);

// Folder of the newest complete checkpoint in `output`; nullopt when there is none.
absl::StatusOr<std::optional<std::string>> NewestCheckpoint(const std::string& output);

// Where a checkpoint's run stood; reads neither weights nor moments. Errors as LoadCheckpoint.
absl::StatusOr<RunState> ReadRunState(const std::string& directory, const ModelConfig& config);

// Fills parameters and moments; every rank reads its part. FAILED_PRECONDITION for a checkpoint of
// another architecture, DATA_LOSS for a damaged one.
absl::StatusOr<RunState> LoadCheckpoint(const std::string& directory, TrainModel& model);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_CHECKPOINT_CHECKPOINT_H_
