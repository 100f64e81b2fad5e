// `hanlin serve`: the three kinds of processes on this machine under a supervisor. Prints "ready
// ADDRESS" on stdout when the gateway serves, and nothing else there.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "cli/output/json.h"
#include "cli/serve/plan.h"
#include "cli/serve/run_directory.h"
#include "cli/serve/supervisor.h"
#include "common/flags/flags.h"
#include "common/host/host.h"
#include "common/io/data_dir.h"
#include "common/obs/log.h"
#include "common/rpc/tls.h"
#include "common/status/status.h"
#include "model/config/config.h"
#include "model/weights/weights.h"
#include "worker/engine/local.h"

namespace hanlin::cli {
namespace {

// Writes a line and ignores a reader that is gone: the service goes on without its log.
void WriteLine(FILE* stream, const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stream);
  std::fputc('\n', stream);
  std::fflush(stream);
  std::clearerr(stream);
}

// A child's log line goes out as it is when it is JSON, else behind the child's name.
void PassOn(bool json, std::string_view process, std::string_view line) {
  if (json && !line.starts_with('{')) {
    WriteLine(stderr, ToLine({{"process", process}, {"event", line}}));
  } else if (json) {
    WriteLine(stderr, std::string(line));
  } else {
    WriteLine(stderr, fmt::format("[{}] {}", process, line));
  }
}

// Groups on one machine share its memory, which each would take half of: their KV caches together
// get half of what all their weights leave.
absl::StatusOr<std::string> SharedKvMemory(const ServeOptions& options, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const ComputeType type,
                   ParseComputeType(options.dtype, options.device, /*scoring=*/false));
  ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
  const uint64_t ranks = static_cast<uint64_t>(options.groups) * options.tp;
  const uint64_t weights = ranks * WeightBytes(config, type, options.tp);
  if (weights >= available) {
    return ResourceExhausted("{} groups need {} MiB for their weights, {} MiB are free",
                             options.groups, weights >> 20, available >> 20);
  }
  return fmt::to_string((available - weights) / 2 / options.groups);
}

// The files that options name, and the model's configuration: what a process would refuse when the
// others have long started.
absl::StatusOr<ModelConfig> CheckFiles(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const ModelConfig config,
                   options.random_weights ? Preset(options.model) : LoadModelConfig(options.model));
  RETURN_IF_ERROR(CheckTp(config, options.tp));
  if (!options.tls_cert.empty()) {
    RETURN_IF_ERROR(ReadKeyPair(options.tls_cert, options.tls_key).status());
  }
  if (!options.tls_client_ca.empty()) {
    RETURN_IF_ERROR(ReadCertificates(options.tls_client_ca).status());
  }
  return config;
}

absl::StatusOr<int> Serve(ServeOptions options) {
  RETURN_IF_ERROR(CheckServeOptions(options));
  RETURN_IF_ERROR(SetupLogging({"serve", options.log_level, options.log_format}));
  ServePlaces places{.binaries = BinaryDirectory()};
  if (options.model.empty() || options.random_weights) {
    ASSIGN_OR_RETURN(places.default_model, DefaultModelDirectory());
    if (options.model.empty()) options.model = places.default_model;
  }
  ASSIGN_OR_RETURN(const ModelConfig config, CheckFiles(options));
  ASSIGN_OR_RETURN(const auto run_directory, RunDirectory::Create());
  places.run_directory = run_directory->path();
  // Groups on one machine share its cores; ranks of a group share out theirs by themselves.
  if (options.threads == 0 && options.groups > 1) {
    options.threads = std::max(1, AvailableCpus() / (options.groups * options.tp));
  }
  if (options.kv_memory.empty() && options.groups > 1 && options.device == "cpu") {
    ASSIGN_OR_RETURN(options.kv_memory, SharedKvMemory(options, config));
  }
  ASSIGN_OR_RETURN(std::vector<UnitPlan> units, PlanServe(options, places));

  const bool json = options.log_format == "json";
  ASSIGN_OR_RETURN(
      const auto supervisor,
      Supervisor::Create(
          {.units = std::move(units),
           .on_ready = [](const std::string& address) { WriteLine(stdout, "ready " + address); },
           .on_line = [json](const std::string& process,
                             std::string_view line) { PassOn(json, process, line); },
           .stop_timeout = std::chrono::seconds(options.drain_timeout_seconds + 10)}));
  Log(LogLevel::kInfo, "starting",
      {{"model", options.model},
       {"groups", options.groups},
       {"tp", options.tp},
       {"run_directory", places.run_directory}});
  const int code = supervisor->Run();
  if (!supervisor->error().empty()) WriteLine(stderr, "hanlin serve: " + supervisor->error());
  return code;
}

}  // namespace

void AddServe(CLI::App& app, Runner& run) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* serve = app.add_subcommand("serve", "Start the gRPC service on this machine");
  serve->add_option("--model", options->model,
                    "Model folder (default: the model that ships with Hanlin)");
  serve->add_flag("--random-weights", options->random_weights,
                  "--model names a preset (base, large, 1.3B, …); its weights are random");
  serve->add_option("--model-name", options->model_name,
                    "Name in requests (default: the folder's)");
  serve
      ->add_option("--device", options->device,
                   "cpu, cuda, or null (ids by formula, for measurements)")
      ->check(CLI::IsMember({"cpu", "cuda", "null"}))
      ->capture_default_str();
  serve->add_flag("--batch-invariant", options->batch_invariant,
                  "On a GPU: ids do not depend on what else runs, at some cost in speed");
  serve->add_option("--null-step-us", options->null_step_us,
                    "Microseconds that a step of the null device takes");
  serve->add_option("--dtype", options->dtype, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  serve->add_option("--tp", options->tp, "Ranks that share one copy of the model")
      ->capture_default_str();
  serve->add_option("--groups", options->groups, "Worker groups, each a copy of the model")
      ->capture_default_str();
  serve->add_option("--threads", options->threads, "Threads of a rank (0: the cores, divided)")
      ->capture_default_str();
  serve->add_option("--kv-memory", options->kv_memory,
                    "KV cache of a group, e.g. 2GiB (default: from the memory that is there)");
  serve->add_option("--max-queue", options->max_queue,
                    "Requests taken in at once before more are refused");
  serve->add_option("--max-queue-tokens", options->max_queue_tokens,
                    "Prompt tokens that may wait before more are refused");
  serve->add_option("--address", options->address, "HOST:PORT to serve on; port 0 picks one")
      ->capture_default_str();
  serve->add_option(
      "--metrics-address", options->metrics_address,
      "HOST:PORT of the gateway's /metrics; the other processes follow on PORT + 1, …");
  serve
      ->add_option("--drain-timeout", options->drain_timeout_seconds,
                   "Seconds that running requests have to finish after SIGTERM")
      ->capture_default_str();
  serve->add_option("--tls-cert", options->tls_cert, "PEM certificate chain: serve over TLS");
  serve->add_option("--tls-key", options->tls_key, "PEM private key");
  serve->add_option("--tls-client-ca", options->tls_client_ca,
                    "PEM: clients must show a certificate of this CA");
  serve->add_option("--log-level", options->log_level, "debug, info, warning or error")
      ->capture_default_str();
  serve->add_option("--log-format", options->log_format, "text or json")->capture_default_str();
  serve->footer(
      "Prints one line \"ready ADDRESS\" when it serves. SIGTERM finishes what runs and ends; a "
      "second one aborts.\n"
      "\n"
      "Examples:\n"
      "  hanlin serve                                          the default model on "
      "127.0.0.1:8080\n"
      "  hanlin serve --model DIR --address 0.0.0.0:8080 --metrics-address 0.0.0.0:9500\n"
      "  hanlin serve --groups 2 --tp 2                        two copies of the model, two "
      "processes each\n"
      "  hanlin serve --model base --random-weights            a preset, to measure with");
  serve->callback([options, &run] {
    run = [options] {
      const absl::StatusOr<int> code = Serve(*options);
      return code.ok() ? *code : ReportError("hanlin serve", code.status());
    };
  });
}

}  // namespace hanlin::cli
