// See plan.h.
#include "cli/serve/plan.h"

#include "common/flags/flags.h"
#include "common/net/address.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

constexpr int kGatewayPhase = 0;
constexpr int kWorkerPhase = 1;
constexpr int kTokenizerPhase = 2;

using Arguments = std::vector<std::string>;

// Appends "--name value" unless the value is empty.
void Add(Arguments& argv, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  argv.emplace_back(name);
  argv.emplace_back(value);
}

absl::Status AddCommon(Arguments& argv, const ServeOptions& options, int metrics_offset) {
  if (!options.metrics_address.empty()) {
    ASSIGN_OR_RETURN(const std::string metrics,
                     OffsetPort(options.metrics_address, metrics_offset));
    Add(argv, "--metrics-address", metrics);
  }
  Add(argv, "--log-level", options.log_level);
  Add(argv, "--log-format", options.log_format);
  return absl::OkStatus();
}

std::string Socket(const ServePlaces& places, std::string_view name) {
  return fmt::format("unix:{}/{}.sock", places.run_directory, name);
}

absl::StatusOr<UnitPlan> PlanTokenizer(const ServeOptions& options, const ServePlaces& places) {
  Arguments argv = {places.binaries + "/hanlin-tokenizer"};
  Add(argv, "--model", options.random_weights ? places.default_model : options.model);
  Add(argv, "--address", Socket(places, "tokenizer"));
  RETURN_IF_ERROR(AddCommon(argv, options, 1));
  return UnitPlan{
      .name = "tokenizer", .processes = {{"tokenizer", argv}}, .stop_phase = kTokenizerPhase};
}

absl::StatusOr<UnitPlan> PlanGroup(const ServeOptions& options, const ServePlaces& places,
                                   int group) {
  UnitPlan unit{.name = fmt::format("worker-{}", group), .stop_phase = kWorkerPhase};
  for (int rank = 0; rank < options.tp; ++rank) {
    Arguments argv = {places.binaries + "/hanlin-worker"};
    Add(argv, options.random_weights ? "--random-weights" : "--model", options.model);
    Add(argv, "--model-name", options.model_name);
    Add(argv, "--device", options.device);
    Add(argv, "--dtype", options.dtype);
    if (options.batch_invariant) argv.push_back("--batch-invariant");
    Add(argv, "--kv-memory", options.kv_memory);
    if (options.null_step_us > 0) {
      Add(argv, "--null-step-us", fmt::to_string(options.null_step_us));
    }
    if (options.threads > 0) Add(argv, "--threads", fmt::to_string(options.threads));
    if (options.max_queue.has_value()) Add(argv, "--max-queue", fmt::to_string(*options.max_queue));
    if (options.max_queue_tokens.has_value()) {
      Add(argv, "--max-queue-tokens", fmt::to_string(*options.max_queue_tokens));
    }
    if (options.tp > 1) {
      Add(argv, "--tp", fmt::to_string(options.tp));
      Add(argv, "--rank", fmt::to_string(rank));
      Add(argv, "--leader", fmt::format("unix:{}/{}.rendezvous", places.run_directory, unit.name));
    }
    if (rank == 0) Add(argv, "--address", Socket(places, unit.name));
    RETURN_IF_ERROR(AddCommon(argv, options, 2 + group * options.tp + rank));
    unit.processes.push_back(
        {options.tp > 1 ? fmt::format("{}.{}", unit.name, rank) : unit.name, argv});
  }
  return unit;
}

absl::StatusOr<UnitPlan> PlanGateway(const ServeOptions& options, const ServePlaces& places) {
  Arguments argv = {places.binaries + "/hanlin-gateway"};
  Add(argv, "--address", options.address);
  std::string workers;
  for (int group = 0; group < options.groups; ++group) {
    if (group > 0) workers += ',';
    workers += Socket(places, fmt::format("worker-{}", group));
  }
  Add(argv, "--workers", workers);
  Add(argv, "--tokenizer", Socket(places, "tokenizer"));
  Add(argv, "--model-name", options.model_name);
  Add(argv, "--drain-timeout", fmt::to_string(options.drain_timeout_seconds));
  Add(argv, "--tls-cert", options.tls_cert);
  Add(argv, "--tls-key", options.tls_key);
  Add(argv, "--tls-client-ca", options.tls_client_ca);
  if (options.max_queue.has_value()) Add(argv, "--max-queue", fmt::to_string(*options.max_queue));
  if (options.max_queue_tokens.has_value()) {
    Add(argv, "--max-queue-tokens", fmt::to_string(*options.max_queue_tokens));
  }
  RETURN_IF_ERROR(AddCommon(argv, options, 0));
  return UnitPlan{.name = "gateway",
                  .processes = {{"gateway", argv}},
                  .stop_phase = kGatewayPhase,
                  .is_front = true};
}

}  // namespace

absl::StatusOr<std::string> OffsetPort(std::string_view address, int offset) {
  const int port = PortOf(address);
  if (port < 0 || port > 65535 - (port == 0 ? 0 : offset)) {
    return InvalidArgument(
        "--metrics-address is \"{}\", want HOST:PORT with ports up to 65535 (metrics of the "
        "processes: PORT, PORT + 1, …)",
        address);
  }
  return fmt::format("{}:{}", address.substr(0, address.rfind(':')), port == 0 ? 0 : port + offset);
}

absl::Status CheckServeOptions(const ServeOptions& options) {
  if (options.tp < 1 || options.tp > 64)
    return InvalidArgument("--tp is {}, want 1 to 64", options.tp);
  if (options.groups < 1 || options.groups > 64) {
    return InvalidArgument("--groups is {}, want 1 to 64", options.groups);
  }
  if (options.device == "cuda" && (options.groups > 1 || options.tp > 1)) {
    return InvalidArgument(
        "--groups is {} and --tp {}, want 1 with --device cuda: a GPU holds one rank",
        options.groups, options.tp);
  }
  if (options.threads < 0)
    return InvalidArgument("--threads is {}, want 0 or more", options.threads);
  if (options.null_step_us < 0) {
    return InvalidArgument("--null-step-us is {}, want 0 or more", options.null_step_us);
  }
  if (options.null_step_us > 0 && options.device != "null") {
    return InvalidArgument("--null-step-us needs --device null, which is \"{}\"", options.device);
  }
  if (options.drain_timeout_seconds < 0) {
    return InvalidArgument("--drain-timeout is {}, want 0 or more seconds",
                           options.drain_timeout_seconds);
  }
  RETURN_IF_ERROR(CheckListenAddress("--address", options.address));
  if (!options.kv_memory.empty()) {
    RETURN_IF_ERROR(ParseSize("--kv-memory", options.kv_memory).status());
  }
  if (options.max_queue.has_value() && (*options.max_queue < 1 || *options.max_queue > 1 << 20)) {
    return InvalidArgument("--max-queue is {}, want 1 to {}", *options.max_queue, 1 << 20);
  }
  if (options.max_queue_tokens.has_value() &&
      (*options.max_queue_tokens < 1 || *options.max_queue_tokens > int64_t{1} << 40)) {
    return InvalidArgument("--max-queue-tokens is {}, want 1 to {}", *options.max_queue_tokens,
                           int64_t{1} << 40);
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return InvalidArgument("--tls-cert and --tls-key go together, {} is missing",
                           options.tls_cert.empty() ? "--tls-cert" : "--tls-key");
  }
  if (!options.tls_client_ca.empty() && options.tls_cert.empty()) {
    return InvalidArgument("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (options.random_weights && options.model.empty()) {
    return InvalidArgument("--random-weights needs --model with the name of a preset");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<UnitPlan>> PlanServe(const ServeOptions& options,
                                                const ServePlaces& places) {
  RETURN_IF_ERROR(CheckServeOptions(options));
  std::vector<UnitPlan> units;
  ASSIGN_OR_RETURN(UnitPlan tokenizer, PlanTokenizer(options, places));
  units.push_back(std::move(tokenizer));
  for (int group = 0; group < options.groups; ++group) {
    ASSIGN_OR_RETURN(UnitPlan unit, PlanGroup(options, places, group));
    units.push_back(std::move(unit));
  }
  ASSIGN_OR_RETURN(UnitPlan gateway, PlanGateway(options, places));
  units.push_back(std::move(gateway));
  return units;
}

}  // namespace hanlin::cli
