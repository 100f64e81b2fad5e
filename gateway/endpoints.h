// Address lists of --workers and --tokenizer: HOST:PORT, unix:PATH, dns:///NAME:PORT and
// dns://SERVER/NAME:PORT, separated by commas. A DNS name stands for all its addresses, each a peer
// of its own (a headless service); Resolve asks for them anew each time. SERVER is the IP:PORT of
// the name server to ask, without it that is the system's. Thread-safe: no state.
#ifndef HANLIN_GATEWAY_ENDPOINTS_H_
#define HANLIN_GATEWAY_ENDPOINTS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace hanlin {

struct Endpoint {
  std::string address;  // As OpenChannel takes it; for a DNS name "NAME:PORT".
  bool dns = false;
  std::string dns_server;  // Empty = the system's.
};

// INVALID_ARGUMENT for an empty list or a malformed address.
absl::StatusOr<std::vector<Endpoint>> ParseEndpoints(std::string_view flag, std::string_view list);

// The addresses to open channels to, sorted, without duplicates. Blocks while a name is looked up;
// UNAVAILABLE when one has no address.
absl::StatusOr<std::vector<std::string>> Resolve(const std::vector<Endpoint>& endpoints);

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_ENDPOINTS_H_
