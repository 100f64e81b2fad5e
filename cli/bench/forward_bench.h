// Decode and prefill of one rank, without scheduler and, on a CPU, sampling: seconds a step, bytes
// and operations, and their share of what the same threads reach in the same run (roofline.h).
#ifndef HANLIN_CLI_BENCH_FORWARD_BENCH_H_
#define HANLIN_CLI_BENCH_FORWARD_BENCH_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/output/json.h"
#include "common/threading/thread_pool.h"
#include "model/checkpoint/checkpoint.h"
#include "model/forward/model.h"

namespace hanlin::cli {

struct ForwardBenchOptions {
  std::string model;  // folder; empty = `preset` with random weights
  std::string preset = "base";
  std::string device = "cpu";
  std::string dtype = "auto";
  bool batch_invariant = false;  // on a GPU
  int threads = 0;               // 0 = all processors
  int batch = 1;
  int context = 256;   // decode: tokens in the cache; prefill: tokens of the prompt
  double seconds = 3;  // of measuring
};

// One token for each of `batch` sequences: {"bench":"decode", …, "tokens_per_second",
// "gb_per_second", "read_gb_per_second", "share_of_read_rate"}.
absl::StatusOr<Json> BenchDecode(const ForwardBenchOptions& options);

// `batch` prompts of `context` tokens: {"bench":"prefill", …, "tokens_per_second",
// "gflop_per_second", "peak_gflop_per_second", "share_of_peak"}.
absl::StatusOr<Json> BenchPrefill(const ForwardBenchOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_FORWARD_BENCH_H_
