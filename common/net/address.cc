// See address.h.
#include "common/net/address.h"

#include <charconv>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kDnsPrefix = "dns://";
constexpr size_t kMaxUnixPath = 107;  // sockaddr_un's 108 bytes hold a zero at the end

}  // namespace

int PortOf(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return -1;
  int port = -1;
  const char* end = address.data() + address.size();
  const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
  return error == std::errc() && rest == end && port >= 0 && port <= 65535 ? port : -1;
}

bool IsServerAddress(std::string_view address) {
  if (address.starts_with(kUnixPrefix)) return address.size() > kUnixPrefix.size();
  if (!address.starts_with(kDnsPrefix)) return PortOf(address) > 0;
  address.remove_prefix(kDnsPrefix.size());
  const size_t slash = address.find('/');
  if (slash == std::string_view::npos || PortOf(address.substr(slash + 1)) <= 0) return false;
  return slash == 0 || PortOf(address.substr(0, slash)) > 0;
}

absl::Status CheckListenAddress(std::string_view what, std::string_view address) {
  if (address.starts_with(kUnixPrefix)) {
    const size_t path = address.size() - kUnixPrefix.size();
    if (path > 0 && path <= kMaxUnixPath) return absl::OkStatus();
    return InvalidArgument("{} is \"{}\", want HOST:PORT or unix:PATH with a path of 1 to {} bytes",
                           what, address, kMaxUnixPath);
  }
  if (PortOf(address) >= 0) return absl::OkStatus();
  return InvalidArgument("{} is \"{}\", want HOST:PORT or unix:PATH", what, address);
}

}  // namespace hanlin
