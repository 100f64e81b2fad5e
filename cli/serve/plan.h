// `hanlin serve` as data: from its options to the command lines of the processes, which talk over
// Unix sockets in a private run directory:
//   tokenizer.sock, worker-G.sock (gRPC of group G's leader), worker-G.rendezvous (its ranks find
//   one another)
// Pure functions. Metrics, when asked for: PORT gateway, PORT + 1 tokenizer, PORT + 2 + rank of all
// groups in a row.
#ifndef HANLIN_CLI_SERVE_PLAN_H_
#define HANLIN_CLI_SERVE_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/serve/supervisor.h"

namespace hanlin::cli {

struct ServeOptions {
  std::string
      model;  // folder, or the name of a preset with random_weights; empty = the default model
  bool random_weights = false;
  std::string model_name;  // empty = the last part of the folder, or the preset
  std::string device = "cpu";
  std::string dtype = "auto";
  bool batch_invariant = false;
  int tp = 1;
  int groups = 1;
  int64_t null_step_us = 0;  // time of a step of the null device
  int threads = 0;           // per rank; 0 = the cores divided among the ranks
  std::string kv_memory;
  std::optional<int> max_queue;
  std::optional<int64_t> max_queue_tokens;
  std::string address = "127.0.0.1:8080";
  std::string metrics_address;  // empty = none
  int drain_timeout_seconds = 30;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  std::string log_level = "info";
  std::string log_format = "text";
};

// Where things are on this machine.
struct ServePlaces {
  std::string binaries;       // folder of hanlin-gateway and its siblings
  std::string run_directory;  // exists, private
  std::string default_model;  // its tokenizer serves a preset, which has none of its own
};

// INVALID_ARGUMENT for values that no process takes, and for options that contradict one another.
absl::Status CheckServeOptions(const ServeOptions& options);

// The tokenizer, the worker groups and the gateway (the front unit).
absl::StatusOr<std::vector<UnitPlan>> PlanServe(const ServeOptions& options,
                                                const ServePlaces& places);

// The metrics address "HOST:PORT" with `offset` added to the port; port 0 stays 0.
absl::StatusOr<std::string> OffsetPort(std::string_view address, int offset);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_SERVE_PLAN_H_
