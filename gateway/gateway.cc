// See gateway.h.
#include "gateway/gateway.h"

#include <atomic>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/obs/log.h"
#include "common/rpc/tls.h"
#include "common/status/status.h"
#include "gateway/endpoint_watcher.h"
#include "gateway/endpoints.h"
#include "gateway/group_set.h"
#include "gateway/metrics.h"
#include "gateway/service.h"

namespace hanlin {

// Members are destroyed from the last to the first: the server goes before what its calls use.
struct Gateway::Parts {
  Parts(const Options& options, std::vector<Endpoint> workers, std::vector<Endpoint> tokenizers)
      : metrics(*options.registry),
        admission(options.admission),
        tokenizer(std::make_shared<TokenizerClient>(options.tokenizer_tls)),
        groups({.model = options.model,
                .health = options.health,
                .tokenizer = tokenizer,
                .on_tick = [this](const absl::Status& serving,
                                  int ready_groups) { OnTick(serving, ready_groups); }}),
        service({.tokenizer = tokenizer.get(),
                 .groups = &groups,
                 .admission = &admission,
                 .metrics = &metrics}),
        tokenizer_watcher(std::move(tokenizers), options.resolve_interval,
                          [this](const auto& list) { tokenizer->SetAddresses(list); }),
        worker_watcher(std::move(workers), options.resolve_interval,
                       [this](const auto& list) { groups.SetAddresses(list); }) {}
  ~Parts() { tokenizer->Close(); }

  // Health follows what could be served, on the ticking thread.
  void OnTick(const absl::Status& serving, int ready_groups) {
    metrics.ready_groups.Set(ready_groups);
    absl::MutexLock lock(&server_mutex);
    if (server == nullptr || draining || health == serving.ok()) return;
    health = serving.ok();
    server->SetServing(serving.ok());
    Log(serving.ok() ? LogLevel::kInfo : LogLevel::kWarning,
        serving.ok() ? "serving" : "not serving", {{"reason", Message(serving)}});
  }

  GatewayMetrics metrics;
  Admission admission;
  // What the ticking thread reaches through OnTick stands before the groups, which own that thread.
  absl::Mutex server_mutex;
  RpcServer* server ABSL_GUARDED_BY(server_mutex) = nullptr;
  bool draining ABSL_GUARDED_BY(server_mutex) = false;
  std::optional<bool> health ABSL_GUARDED_BY(server_mutex);
  std::shared_ptr<TokenizerClient> tokenizer;
  GroupSet groups;
  TextGenerationService service;
  EndpointWatcher tokenizer_watcher;
  EndpointWatcher worker_watcher;
  std::unique_ptr<RpcServer> owned_server;
};

Gateway::Gateway(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Gateway::~Gateway() {
  {
    absl::MutexLock lock(&parts_->server_mutex);
    parts_->server = nullptr;
  }
  parts_->owned_server->Shutdown(absl::ZeroDuration());
}

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Create(const Options& options) {
  ASSIGN_OR_RETURN(auto workers, ParseEndpoints("--workers", options.workers));
  ASSIGN_OR_RETURN(auto tokenizers, ParseEndpoints("--tokenizer", options.tokenizer));
  RETURN_IF_ERROR(CheckTlsFiles(options.tls));
  if (!options.tokenizer_tls.ca.empty()) {
    RETURN_IF_ERROR(ReadCertificates(options.tokenizer_tls.ca).status());
  }
  auto parts = std::make_unique<Parts>(options, std::move(workers), std::move(tokenizers));
  ASSIGN_OR_RETURN(parts->owned_server,
                   RpcServer::Create({.address = options.address,
                                      .services = {&parts->service},
                                      .tls = options.tls,
                                      .max_connection_age = options.max_connection_age}));
  {
    absl::MutexLock lock(&parts->server_mutex);
    parts->server = parts->owned_server.get();
  }
  return std::unique_ptr<Gateway>(new Gateway(std::move(parts)));
}

const std::string& Gateway::address() const { return parts_->owned_server->address(); }

absl::Status Gateway::Serving() const { return parts_->groups.Serving(); }

bool Gateway::Drain(absl::Duration timeout) {
  parts_->service.Drain();
  {
    absl::MutexLock lock(&parts_->server_mutex);
    parts_->draining = true;
    parts_->owned_server->SetServing(false);
  }
  const absl::Time until = absl::Now() + timeout;
  while (parts_->admission.requests() > 0 && absl::Now() < until) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  const bool all_ended = parts_->admission.requests() == 0;
  parts_->owned_server->Shutdown(absl::ZeroDuration());
  return all_ended;
}

}  // namespace hanlin
