// Measurements of a running service: start-up time and streams under load. Start a service of their
// own unless they are given one.
#ifndef HANLIN_CLI_BENCH_SERVICE_BENCH_H_
#define HANLIN_CLI_BENCH_SERVICE_BENCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/output/json.h"

namespace hanlin::cli {

struct StartBenchOptions {
  std::string model;  // empty = the default model
  std::string device = "cpu";
  int repeats = 5;
};

// {"bench":"start", "ready_seconds", "first_token_seconds"}: medians from the start of the process
// to its "ready" line, and to the first token of a request sent then.
absl::StatusOr<Json> BenchStart(const StartBenchOptions& options);

struct LoadBenchOptions {
  std::string target;  // empty = a service of its own
  std::string tls_ca;
  std::string model;    // of that service
  bool null = false;    // … whose workers are null devices: what remains is the cost of streaming
  int64_t step_us = 0;  // … and take this time for a step, so that the client keeps up
  int streams = 64;
  int requests = 0;    // 0 = enough for a few seconds
  int max_tokens = 0;  // 0 = 64; with null 400
  double rate = 0;     // requests a second; 0 = closed loop
  std::string input;   // JSON lines of prompts; empty = a built-in prompt
};

// {"bench":"load", "tokens_per_second", "messages_per_second", "ids_per_message",
// "ttft_ms":{"p50",…}, "added_ttft_ms", "tpot_ms", "itl_ms", "e2el_ms", "errors":{…}}. With null,
// "idle_added_ttft_ms" is that of one stream at a time.
absl::StatusOr<Json> BenchLoad(const LoadBenchOptions& options);

// {"mean","p50","p90","p99","max"} of `seconds`, in milliseconds; null without values.
Json Percentiles(std::vector<double> seconds);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_SERVICE_BENCH_H_
