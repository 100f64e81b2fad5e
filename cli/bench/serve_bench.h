// `hanlin bench serve`: a whole service under the load of many clients, over real gRPC streams. A
// fixed number of requests with mixed lengths is kept in flight; figures are of the steady state
// alone, after the first requests have ended and before the last are started. Beside them, when
// the raw figures of model and machine are given, their share: what scheduler, sampling, gateway
// and streaming leave of the model's own speed.
#ifndef HANLIN_CLI_BENCH_SERVE_BENCH_H_
#define HANLIN_CLI_BENCH_SERVE_BENCH_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "cli/bench/load_client.h"
#include "cli/output/json.h"

namespace hanlin::cli {

struct ServeBenchOptions {
  std::string target;  // empty = a service of its own, started with what follows
  std::string tls_ca;
  std::string model;   // folder; empty = `preset`, or the default model
  std::string preset;  // with random weights
  std::string device = "cpu";
  std::string dtype = "auto";
  bool batch_invariant = false;
  std::string kv_memory;

  int concurrency = 32;
  int requests = 2000;      // at least, in the steady state
  double seconds = 60;      // at least, of it
  int prompt_tokens = 256;  // mean; uniform in a quarter to seven quarters of it
  int output_tokens = 128;  // likewise
  bool greedy = false;      // else the model's sampling
  uint64_t seed = 1;        // of lengths, ids and draws

  // Figures of `hanlin bench decode` with `concurrency` sequences (a step) and of `hanlin bench
  // prefill` (1000 tokens), in milliseconds; 0 = not known.
  double decode_ms = 0;
  double prefill_ms_per_1k = 0;
};

// {"bench":"serve", …, "steady_seconds", "requests", "output_tokens_per_second",
// "prompt_tokens_per_second", "ttft_ms":{"p50","p99",…}, "tpot_ms", "itl_ms", "e2el_ms",
// "itl_p99_over_median", "longest_wait_ms", "errors":{…}, "raw_tokens_per_second", "share"}.
absl::StatusOr<Json> BenchServe(const ServeBenchOptions& options);

// Request `index` of a run: the same for the same options, whatever runs beside it. Ids are in [0,
// `vocabulary`).
v1::StreamGenerateRequest MakeServeRequest(const ServeBenchOptions& options, int vocabulary,
                                           int index);

// The figures of a load's steady state. A first token, a gap and an end count where they happen;
// a wait for ids (from the request to its first ones, or between two messages) also where it
// reaches into the steady state.
Json SummarizeSteadyState(const LoadResult& load);

// Output tokens a second that the raw figures would give: each output token costs its part of a
// decode step and the prefill of `prompt_per_output` prompt tokens.
double RawTokensPerSecond(const ServeBenchOptions& options, double prompt_per_output);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_SERVE_BENCH_H_
