// A gRPC server as every Hanlin process wants it: grpc.health.v1, reflection, channelz, keepalive
// that tolerates pings every 10 s, bounded metadata and messages, a maximal connection age, an
// error for a port in use. Services use the callback API. Thread-safe after Create.
#ifndef HANLIN_COMMON_RPC_SERVER_H_
#define HANLIN_COMMON_RPC_SERVER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/acceptor.h"

namespace grpc {
class Server;
class Service;
namespace experimental {
class ExternalConnectionAcceptor;
}
}  // namespace grpc

namespace hanlin {

struct TlsFiles {
  std::string certificate_chain;  // PEM file; empty = plaintext
  std::string private_key;        // PEM file
  std::string client_ca;          // PEM file; set = clients must show a certificate signed by it
};

// A name that grpc.health.v1 answers with SERVING for as long as the process takes connections and
// answers calls, whatever else is missing: for liveness probes.
inline constexpr std::string_view kLivenessService = "liveness";

// INVALID_ARGUMENT or NOT_FOUND for what RpcServer::Create would refuse; for those who do a lot
// before they get there.
absl::Status CheckTlsFiles(const TlsFiles& tls);

class RpcServer {
 public:
  struct Options {
    // HOST:PORT (port 0 picks one) or unix:PATH.
    std::string address;
    // Not owned; must outlive the server.
    std::vector<grpc::Service*> services;
    TlsFiles tls;
    // Age at which a connection is asked to go away, so that clients re-resolve; zero = never
    // (internal links).
    absl::Duration max_connection_age = absl::ZeroDuration();
    // Time that calls on such a connection have to finish.
    absl::Duration max_connection_age_grace = absl::Minutes(10);
    int max_receive_message_bytes = 16 << 20;
  };
  // INVALID_ARGUMENT for a bad address or TLS file, FAILED_PRECONDITION when the address is in
  // use.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Create(const Options& options);
  ~RpcServer();

  // The address with the real port.
  const std::string& address() const { return address_; }
  // Sets grpc.health.v1's answer for the whole server ("") and every service of it. NOT_SERVING
  // until first set.
  void SetServing(bool serving);
  // Refuses new calls, waits for running ones until `grace` is over, then cancels them. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer() = default;

  std::string address_;
  std::unique_ptr<Acceptor> acceptor_;  // null for a Unix socket
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
  std::unique_ptr<grpc::Server> server_;
  bool stopped_ = false;
};

// Raises the soft limit of file descriptors to the hard one; a server runs out of them before it
// runs out of anything.
void RaiseDescriptorLimit();

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_SERVER_H_
