// hanlin-tokenizer: serves the tokenizer of one model folder over gRPC. Stateless; run as many as
// wanted. Prints one line "ready ADDRESS" on stdout once it serves; SIGTERM drains, a second one
// aborts.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "common/flags/environment.h"
#include "common/flags/flags.h"
#include "common/host/service_notifier.h"
#include "common/io/data_dir.h"
#include "common/obs/log.h"
#include "common/obs/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/loader.h"
#include "tokenizer_svc/service.h"

namespace hanlin {
namespace {

constexpr char kName[] = "hanlin-tokenizer";

struct Flags {
  std::string model;
  std::string address = "127.0.0.1:7072";
  std::string metrics_address;
  double drain_timeout_seconds = 10;
  TlsFiles tls;
  LogOptions log{.process = "tokenizer"};
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model,
                 "Folder with the tokenizer's files (default: the model that ships with Hanlin)");
  app.add_option("--address", flags.address,
                 "HOST:PORT (port 0 picks one) or unix:PATH to serve on")
      ->capture_default_str();
  app.add_option("--metrics-address", flags.metrics_address,
                 "HOST:PORT of Prometheus metrics at /metrics (default: none)");
  app.add_option("--drain-timeout", flags.drain_timeout_seconds,
                 "Seconds that running calls have to end after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_option("--tls-cert", flags.tls.certificate_chain, "PEM file; unset = plaintext");
  app.add_option("--tls-key", flags.tls.private_key, "PEM file");
  app.add_option("--tls-client-ca", flags.tls.client_ca,
                 "PEM file; clients must show a certificate signed by it");
  AddLogFlags(app, flags.log);
}

absl::Status Serve(const Flags& flags, ShutdownSignal& shutdown) {
  std::string model = flags.model;
  if (model.empty()) {
    ASSIGN_OR_RETURN(model, DefaultModelDirectory());
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(model));
  ASSIGN_OR_RETURN(const std::unique_ptr<MetricsServer> metrics,
                   MetricsServer::Create(flags.metrics_address));
  const std::shared_ptr<grpc::Service> service =
      MakeTokenizerService(tokenizer, metrics->registry());
  // A message holds a text of the largest size and its fields; longer texts are refused by name.
  RpcServer::Options options{
      .address = flags.address,
      .services = {service.get()},
      .tls = flags.tls,
      .max_receive_message_bytes = static_cast<int>(Tokenizer::kMaxTextBytes) + (1 << 20)};
  ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server, RpcServer::Create(options));
  server->SetServing(true);
  Log(LogLevel::kInfo, "tokenizer serves",
      {{"address", server->address()},
       {"metrics", metrics->address()},
       {"kind", tokenizer->kind()},
       {"vocab_size", tokenizer->vocab_size()},
       {"fingerprint", tokenizer->fingerprint()}});
  std::printf("ready %s\n", server->address().c_str());
  std::fflush(stdout);
  const ServiceNotifier notifier;
  shutdown.Wait();
  Log(LogLevel::kInfo, "tokenizer drains", {{"seconds", flags.drain_timeout_seconds}});
  server->SetServing(false);
  server->Shutdown(absl::Seconds(flags.drain_timeout_seconds));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"Serves the tokenizer of a model folder over gRPC (hanlin.v1.TokenizerService).",
               kName};
  AddFlags(app, flags);
  if (const auto code = ParseFlags(app, argc, argv)) return *code;
  if (const absl::Status status = SetupLogging(flags.log); !status.ok()) {
    return ReportError(kName, status);
  }
  LogUnknownVariables();
  ShutdownSignal shutdown;
  RaiseDescriptorLimit();
  const absl::Status status = Serve(flags, shutdown);
  return status.ok() ? kExitOk : ReportError(kName, status);
}

}  // namespace
}  // namespace hanlin

int main(int argc, char** argv) { return hanlin::Main(argc, argv); }
