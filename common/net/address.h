// Addresses as flags hold them, checked before anything is started: "HOST:PORT", or "unix:PATH" for
// a socket file. Nothing is looked up. Pure functions.
#ifndef HANLIN_COMMON_NET_ADDRESS_H_
#define HANLIN_COMMON_NET_ADDRESS_H_

#include <string_view>

#include "absl/status/status.h"

namespace hanlin {

// The port of "HOST:PORT", 0 to 65535; -1 when there is none, or no host before it.
int PortOf(std::string_view address);

// An address that a server can listen on: HOST:PORT (port 0 picks one) or unix:PATH.
// INVALID_ARGUMENT names `what`, a flag for example, and the address.
absl::Status CheckListenAddress(std::string_view what, std::string_view address);

// An address that a client can call: HOST:PORT, unix:PATH, dns:///NAME:PORT or
// dns://SERVER:PORT/NAME:PORT.
bool IsServerAddress(std::string_view address);

}  // namespace hanlin

#endif  // HANLIN_COMMON_NET_ADDRESS_H_
