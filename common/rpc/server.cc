// See server.h.
#include "common/rpc/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/resource.h>

#include <charconv>
#include <mutex>

#include "common/io/file.h"
#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr uint64_t kMaxPemBytes = 1 << 20;
// A request carries a handful of short headers; gRPC 1.51 spends seconds of CPU on megabytes of
// them (CVE-2023-33953), so more than this is refused.
constexpr int kMaxMetadataBytes = 16 << 10;

absl::Status CheckAddress(const std::string& address) {
  if (address.starts_with("unix:")) {
    if (address.size() > 5 && address.size() < 5 + 108) return absl::OkStatus();
    return InvalidArgument(
        "address is \"{}\", want HOST:PORT or unix:PATH with a path of at most 107 bytes", address);
  }
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0) {
    const char* end = address.data() + address.size();
    const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end) port = -1;
  }
  if (port < 0 || port > 65535) {
    return InvalidArgument("address is \"{}\", want HOST:PORT or unix:PATH", address);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const TlsFiles& tls) {
  if (tls.certificate_chain.empty() && tls.private_key.empty()) {
    if (!tls.client_ca.empty()) {
      return InvalidArgument("a client CA ({}) is given without a certificate and key",
                             tls.client_ca);
    }
    return grpc::InsecureServerCredentials();
  }
  if (tls.certificate_chain.empty() || tls.private_key.empty()) {
    return InvalidArgument("TLS wants both a certificate and a private key, got only \"{}{}\"",
                           tls.certificate_chain, tls.private_key);
  }
  grpc::SslServerCredentialsOptions options;
  ASSIGN_OR_RETURN(std::string key, ReadFile(tls.private_key, kMaxPemBytes));
  ASSIGN_OR_RETURN(std::string chain, ReadFile(tls.certificate_chain, kMaxPemBytes));
  for (const auto& [text, path] :
       {std::pair{&key, &tls.private_key}, {&chain, &tls.certificate_chain}}) {
    if (text->find("-----BEGIN") == std::string::npos) {
      return InvalidArgument("{} is not a PEM file", *path);
    }
  }
  options.pem_key_cert_pairs.push_back({std::move(key), std::move(chain)});
  if (!tls.client_ca.empty()) {
    ASSIGN_OR_RETURN(options.pem_root_certs, ReadFile(tls.client_ca, kMaxPemBytes));
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
  RETURN_IF_ERROR(CheckAddress(options.address));
  ASSIGN_OR_RETURN(const auto credentials, Credentials(options.tls));
  InstallPlugins();
  RaiseDescriptorLimit();
  grpc::ServerBuilder builder;
  SetChannelArguments(options, builder);
  int port = -1;
  builder.AddListeningPort(options.address, credentials, &port);
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  auto server = std::unique_ptr<RpcServer>(new RpcServer);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return Unavailable("cannot listen on {} (is the address in use, or a TLS file invalid?)",
                       options.address);
  }
  server->address_ = options.address;
  if (!options.address.starts_with("unix:")) {
    server->address_ =
        fmt::format("{}:{}", options.address.substr(0, options.address.rfind(':')), port);
  }
  server->SetServing(false);
  return server;
}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetServing(bool serving) {
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(serving);
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (stopped_ || server_ == nullptr) return;
  stopped_ = true;
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
