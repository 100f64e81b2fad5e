// A load client for the public API: many streams over one connection, served by one thread and one
// completion queue, because the client shares the machine with what it measures. Closed loop (a new
// request when one ends) or open loop (requests leave at a fixed rate, whatever has come back). A
// closed loop can go on until a steady state has lasted long enough, and then records every
// message.
#ifndef HANLIN_CLI_BENCH_LOAD_CLIENT_H_
#define HANLIN_CLI_BENCH_LOAD_CLIENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin::cli {

struct LoadOptions {
  std::string target;
  std::string ca_certificate;
  std::vector<v1::StreamGenerateRequest> requests;  // taken in turn
  int streams = 64;  // closed loop: requests in flight; open loop: at most these
  int total = 256;   // requests in all
  double rate = 0;   // requests a second; 0 = closed loop
  absl::Duration request_timeout = absl::Minutes(10);
  // In place of `requests`: makes request number i.
  std::function<v1::StreamGenerateRequest(int i)> make_request;
  // More than 0: a closed loop that starts requests until, after the first `streams` have ended,
  // this time has passed and `total` more have ended, or until more than `streams` have failed.
  // That stretch is the steady state of the result, which has traces.
  absl::Duration steady;
};

// What came of one request. Times in seconds since the start of the load.
struct RequestTrace {
  struct Piece {
    double time = 0;
    int ids = 0;  // at least 1
  };

  int prompt_tokens = 0;  // of a prompt of ids
  bool ok = false;
  double sent = 0;
  double end = 0;
  std::vector<Piece> pieces;
};

// Times in seconds, one entry per request or per gap.
struct LoadResult {
  double elapsed = 0;
  int64_t tokens = 0;
  int64_t messages = 0;
  std::vector<double> first_token;        // request sent to first ids
  std::vector<double> added_first_token;  // of that, outside the worker (its own time subtracted)
  std::vector<double> per_token;          // (end − first token) / (tokens − 1) of a request
  std::vector<double> gap;                // between messages of a stream
  std::vector<double> whole;              // request sent to its end
  std::map<std::string, int64_t> errors;  // by code
  std::vector<RequestTrace> traces;       // in order of their ends
  double steady_begin = 0;                // seconds since the start
  double steady_end = 0;
};

// Runs the load. Failed requests are counted in the result; an error is returned when none
// succeeded, or too few for a steady state.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options);

// What the one model of the service at `target` is.
absl::StatusOr<v1::GetModelInfoResponse> FetchModelInfo(const std::string& target,
                                                        const std::string& ca_certificate);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_LOAD_CLIENT_H_
