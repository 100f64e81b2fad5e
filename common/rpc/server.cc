// See server.h.
#include "common/rpc/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/resource.h>

#include <mutex>

#include "common/net/address.h"
#include "common/obs/log.h"
#include "common/rpc/tls.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// A request carries a handful of short headers; gRPC 1.51 spends seconds of CPU on megabytes of
// them (CVE-2023-33953), so more than this is refused.
constexpr int kMaxMetadataBytes = 16 << 10;

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const TlsFiles& tls) {
  if (tls.certificate_chain.empty() && tls.private_key.empty()) {
    if (!tls.client_ca.empty()) {
      return InvalidArgument("a client CA ({}) is given without a certificate and key",
                             tls.client_ca);
    }
    return grpc::InsecureServerCredentials();
  }
  ASSIGN_OR_RETURN(KeyPair pair, ReadKeyPair(tls.certificate_chain, tls.private_key));
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back(
      {std::move(pair.private_key), std::move(pair.certificate_chain)});
  if (!tls.client_ca.empty()) {
    ASSIGN_OR_RETURN(options.pem_root_certs, ReadCertificates(tls.client_ca));
    options.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  }
  return grpc::SslServerCredentials(options);
}

void SetChannelArguments(const RpcServer::Options& options, grpc::ServerBuilder& builder) {
  // Clients may ping every 10 s, also without a call; half of it leaves room for jitter.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // With port reuse two servers would share a port in silence; an occupied port must be an error.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (options.max_connection_age > absl::ZeroDuration()) {
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age_grace)));
  }
  builder.SetMaxReceiveMessageSize(options.max_receive_message_bytes);
}

// gRPC's own lines repeat what our errors say, so they are for debugging only.
void LogFromGrpc(gpr_log_func_args* args) {
  Log(LogLevel::kDebug, "grpc",
      {{"file", args->file}, {"line", args->line}, {"message", args->message}});
}

// Process-wide plug-ins; they take effect for servers built after it.
void InstallPlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(LogFromGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::channelz::experimental::InitChannelzService();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Create(const Options& options) {
  RETURN_IF_ERROR(CheckListenAddress("address", options.address));
  ASSIGN_OR_RETURN(const auto credentials, Credentials(options.tls));
  InstallPlugins();
  RaiseDescriptorLimit();
  grpc::ServerBuilder builder;
  SetChannelArguments(options, builder);
  auto server = std::unique_ptr<RpcServer>(new RpcServer);
  server->address_ = options.address;
  if (options.address.starts_with("unix:")) {
    builder.AddListeningPort(options.address, credentials);
  } else {
    ASSIGN_OR_RETURN(server->acceptor_, Acceptor::Create(options.address));
    server->address_ = server->acceptor_->address();
    server->connections_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  }
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return Unavailable("cannot listen on {} (is the address in use?)", options.address);
  }
  server->SetServing(false);
  if (server->acceptor_ != nullptr) {
    server->acceptor_->Start([connections = server->connections_.get()](int fd) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
      parameters.fd = fd;
      connections->HandleNewConnection(&parameters);
    });
  }
  return server;
}

absl::Status CheckTlsFiles(const TlsFiles& tls) { return Credentials(tls).status(); }

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetServing(bool serving) {
  auto* health = server_->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus(serving);
  health->SetServingStatus(std::string(kLivenessService), true);
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (stopped_ || server_ == nullptr) return;
  stopped_ = true;
  if (acceptor_ != nullptr) acceptor_->Stop();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace hanlin
