// Looks a name up, by c-ares: unlike getaddrinfo it ends by a deadline, and can be told which name
// server to ask. Blocks the calling thread. Thread-safe: no state.
#ifndef HANLIN_COMMON_NET_DNS_H_
#define HANLIN_COMMON_NET_DNS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace hanlin {

// All addresses of `name`, IPv4 and IPv6, as "IP:PORT" and "[IP]:PORT", in no order. `server`:
// "IP:PORT" of the only name server to ask; empty = /etc/hosts, then those of /etc/resolv.conf.
// UNAVAILABLE when there is no address or no answer in time, INVALID_ARGUMENT for a malformed
// server.
absl::StatusOr<std::vector<std::string>> ResolveName(const std::string& name, int port,
                                                     const std::string& server,
                                                     absl::Time deadline);

}  // namespace hanlin

#endif  // HANLIN_COMMON_NET_DNS_H_
