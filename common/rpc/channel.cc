// See channel.h.
#include "common/rpc/channel.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "common/rpc/tls.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(
    const ChannelOptions& options) {
  if (options.ca_certificate.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadCertificates(options.ca_certificate));
  if (!options.certificate_chain.empty()) {
    ASSIGN_OR_RETURN(KeyPair pair, ReadKeyPair(options.certificate_chain, options.private_key));
    ssl.pem_cert_chain = std::move(pair.certificate_chain);
    ssl.pem_private_key = std::move(pair.private_key);
  }
  return grpc::SslCredentials(ssl);
}

// One call that fails at once, on a channel that leads nowhere and stays.
struct Anchor {
  Anchor() {
    stub.UnaryCall(&context, "/none", {}, &request, &response, [](const grpc::Status&) {});
  }
  grpc::GenericStub stub{grpc::CreateChannel("", nullptr)};
  grpc::ClientContext context;
  grpc::Slice empty;
  grpc::ByteBuffer request{&empty, 1};
  grpc::ByteBuffer response;
};

// gRPC 1.51 runs the callbacks of all channels on threads that end with the last channel that made
// a call. Where a callback releases that last one, a thread joins itself and frees what it still
// uses. A channel that is never destroyed keeps the threads.
void KeepCallbackThreads() {
  // Volatile, so that the pointer exists and leak checkers see it.
  [[maybe_unused]] static Anchor* volatile anchor = new Anchor;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const ChannelOptions& options) {
  ASSIGN_OR_RETURN(const auto credentials, Credentials(options));
  KeepCallbackThreads();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // In spite of its name this is the time that one attempt may take, TLS and the peer's first frame
  // included; a busy machine needs more than a moment.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!options.server_name.empty()) arguments.SetSslTargetNameOverride(options.server_name);
  arguments.SetMaxReceiveMessageSize(options.max_receive_message_bytes);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

}  // namespace hanlin
