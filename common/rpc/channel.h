// Client channels as Hanlin wants them: keepalive every 10 s, quick reconnects (after 100 ms to 1
// s, each attempt may take 3 s), no compression, its own connection (no sharing of subchannels
// between channels). Thread-safe.
#ifndef HANLIN_COMMON_RPC_CHANNEL_H_
#define HANLIN_COMMON_RPC_CHANNEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class Channel;
}

namespace hanlin {

struct ChannelOptions {
  std::string ca_certificate;  // PEM file; empty = plaintext
  std::string certificate_chain;
  std::string private_key;
  std::string server_name;  // in the server's certificate; empty = the host of the address
  int max_receive_message_bytes = 256 << 20;
};

// `address`: HOST:PORT, unix:PATH or dns:///NAME:PORT. Connects lazily; INVALID_ARGUMENT for an
// unreadable TLS file.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& address,
                                                           const ChannelOptions& options = {});

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_CHANNEL_H_
