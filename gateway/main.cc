// hanlin-gateway: flags, metrics, signals around one Gateway. Prints "ready ADDRESS" on stdout once
// it listens and could serve a request.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>
#include <string>

#include "common/flags/environment.h"
#include "common/flags/flags.h"
#include "common/host/service_notifier.h"
#include "common/obs/log.h"
#include "common/obs/metrics.h"
#include "common/rpc/shutdown.h"
#include "common/status/status.h"
#include "gateway/gateway.h"

namespace hanlin {
namespace {

constexpr char kName[] = "hanlin-gateway";

struct Flags {
  Gateway::Options gateway;
  LogOptions log = {.process = "gateway"};
  std::string metrics_address;
  double drain_timeout_seconds = 30;
  double max_connection_age_seconds = 0;
  double stall_timeout_seconds = 10;
  bool parent_death = false;
};

void AddFlags(CLI::App& app, Flags& flags) {
  Gateway::Options& gateway = flags.gateway;
  gateway.address = "127.0.0.1:50051";
  app.add_option("--address", gateway.address, "HOST:PORT (port 0 picks one) or unix:PATH")
      ->capture_default_str();
  app.add_option("--workers", gateway.workers,
                 "Leaders of the worker groups: HOST:PORT, unix:PATH or dns:///NAME:PORT, "
                 "separated by commas")
      ->required();
  app.add_option("--tokenizer", gateway.tokenizer, "Tokenizer replicas, in the same form")
      ->required();
  app.add_option("--model-name", gateway.model,
                 "Model that the groups must serve (default: that of the first one)");
  app.add_option("--metrics-address", flags.metrics_address, "HOST:PORT of /metrics");
  app.add_option("--max-queue", gateway.admission.max_requests, "Most requests taken in at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--max-queue-tokens", gateway.admission.max_prompt_tokens,
                 "Most prompt tokens waiting for their first token")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_timeout_seconds,
                 "Seconds that running calls have to end after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_option("--max-connection-age", flags.max_connection_age_seconds,
                 "Seconds after which a connection is asked to go away, so that clients spread; "
                 "0 = never")
      ->check(CLI::Range(0.0, 2e6))
      ->capture_default_str();
  app.add_option("--stall-timeout", flags.stall_timeout_seconds,
                 "Seconds without progress after which a busy worker group is taken out")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app.add_option("--tls-cert", gateway.tls.certificate_chain, "PEM file; unset = plaintext");
  app.add_option("--tls-key", gateway.tls.private_key, "PEM file");
  app.add_option("--tls-client-ca", gateway.tls.client_ca,
                 "PEM file; clients must show a certificate signed by it");
  app.add_option("--tokenizer-ca", gateway.tokenizer_tls.ca,
                 "PEM file; the tokenizer speaks TLS with a certificate signed by it");
  app.add_option("--tokenizer-name", gateway.tokenizer_tls.name,
                 "Name in that certificate (default: the address)")
      ->needs("--tokenizer-ca");
  app.add_flag("--parent-death", flags.parent_death, "End when the parent process dies");
  AddLogFlags(app, flags.log);
}

// Says every few seconds what is missing. False when a signal came first.
bool WaitUntilServing(const Gateway& gateway, ShutdownSignal& shutdown) {
  for (int i = 0; !gateway.Serving().ok(); ++i) {
    if (i % 200 == 50) {
      Log(LogLevel::kInfo, "waiting", {{"reason", Message(gateway.Serving())}});
    }
    if (shutdown.WaitFor(absl::Milliseconds(10))) return false;
  }
  return true;
}

absl::Status Run(Flags& flags, ShutdownSignal& shutdown) {
  RETURN_IF_ERROR(SetupLogging(flags.log));
  LogUnknownVariables();
  ASSIGN_OR_RETURN(const auto metrics, MetricsServer::Create(flags.metrics_address));
  flags.gateway.registry = &metrics->registry();
  flags.gateway.max_connection_age = absl::Seconds(flags.max_connection_age_seconds);
  flags.gateway.health.stall_timeout = absl::Seconds(flags.stall_timeout_seconds);
  ASSIGN_OR_RETURN(const auto gateway, Gateway::Create(flags.gateway));
  Log(LogLevel::kInfo, "listening",
      {{"address", gateway->address()}, {"metrics_address", metrics->address()}});
  std::optional<ServiceNotifier> notifier;
  if (WaitUntilServing(*gateway, shutdown)) {
    std::printf("ready %s\n", gateway->address().c_str());
    std::fflush(stdout);
    notifier.emplace();
    shutdown.Wait();
  }
  const bool all_ended = gateway->Drain(absl::Seconds(flags.drain_timeout_seconds));
  Log(LogLevel::kInfo, "drained", {{"all_calls_ended", all_ended}});
  return absl::OkStatus();
}

}  // namespace
}  // namespace hanlin

int main(int argc, char** argv) {
  hanlin::ShutdownSignal shutdown;
  hanlin::Flags flags;
  CLI::App app{"The public API of Hanlin: text in, text out, over gRPC.", hanlin::kName};
  hanlin::AddFlags(app, flags);
  if (const auto code = hanlin::ParseFlags(app, argc, argv)) return *code;
  if (flags.parent_death) hanlin::DieWithParent();
  const absl::Status status = hanlin::Run(flags, shutdown);
  return status.ok() ? hanlin::kExitOk : hanlin::ReportError(hanlin::kName, status);
}
