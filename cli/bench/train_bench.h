// Whole steps of training on random ids: forward, backward, norm, AdamW. Tokens a second, and the
// share of what a large product reaches in the same run (MFU, docs/training.md).
#ifndef HANLIN_CLI_BENCH_TRAIN_BENCH_H_
#define HANLIN_CLI_BENCH_TRAIN_BENCH_H_

#include <string>

#include "absl/status/statusor.h"
#include "cli/output/json.h"

namespace hanlin::cli {

struct TrainBenchOptions {
  std::string model;  // folder, of which the configuration counts; empty = `preset`
  std::string preset = "base";
  int vocab_size = 0;  // 0 = the model's
  std::string device = "cpu";
  std::string dtype = "auto";  // of the products: on a CPU fp32, on a GPU bf16
  std::string recompute = "none";
  double dropout = 0;   // all three rates
  int threads = 0;      // 0 = all processors
  int batch = 4;        // sequences of a micro-batch
  int context = 128;    // tokens of a sequence
  int accumulate = 1;   // micro-batches of a step
  double seconds = 10;  // of measuring
};

// {"bench":"train", …, "tokens_per_second", "peak_gflop_per_second", "mfu", "memory_plan",
// "memory_used_gb"}. With weights that are random.
absl::StatusOr<Json> BenchTrain(const TrainBenchOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_TRAIN_BENCH_H_
