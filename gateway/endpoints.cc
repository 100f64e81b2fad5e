// See endpoints.h.
#include "gateway/endpoints.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr std::string_view kDnsScheme = "dns:///";
constexpr std::string_view kUnixScheme = "unix:";

bool HasPort(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  int port = 0;
  const char* end = address.data() + address.size();
  const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
  return error == std::errc() && rest == end && port > 0 && port < 65536;
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view flag, std::string_view text) {
  Endpoint endpoint;
  endpoint.dns = text.starts_with(kDnsScheme);
  endpoint.address = endpoint.dns ? text.substr(kDnsScheme.size()) : text;
  const bool is_unix = text.starts_with(kUnixScheme);
  if (is_unix ? text.size() > kUnixScheme.size() : HasPort(endpoint.address)) return endpoint;
  return InvalidArgument("{} holds \"{}\", want HOST:PORT, unix:PATH or dns:///NAME:PORT", flag,
                         text);
}

std::string FormatAddress(const addrinfo& info) {
  char text[INET6_ADDRSTRLEN] = {};
  if (info.ai_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(info.ai_addr);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    return fmt::format("{}:{}", text, ntohs(v4->sin_port));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(info.ai_addr);
  inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
  return fmt::format("[{}]:{}", text, ntohs(v6->sin6_port));
}

absl::Status LookUp(const std::string& address, std::vector<std::string>* out) {
  const size_t colon = address.rfind(':');
  const std::string name = address.substr(0, colon);
  const addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* raw = nullptr;
  const int error = getaddrinfo(name.c_str(), address.c_str() + colon + 1, &hints, &raw);
  if (error != 0) return Unavailable("cannot resolve {}: {}", name, gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(raw, &freeaddrinfo);
  for (const addrinfo* info = raw; info != nullptr; info = info->ai_next) {
    if (info->ai_family != AF_INET && info->ai_family != AF_INET6) continue;
    out->push_back(FormatAddress(*info));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Endpoint>> ParseEndpoints(std::string_view flag, std::string_view list) {
  std::vector<Endpoint> endpoints;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    ASSIGN_OR_RETURN(Endpoint endpoint, ParseEndpoint(flag, list.substr(0, comma)));
    endpoints.push_back(std::move(endpoint));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  if (endpoints.empty()) {
    return InvalidArgument("{} is empty, want HOST:PORT, unix:PATH or dns:///NAME:PORT", flag);
  }
  return endpoints;
}

absl::StatusOr<std::vector<std::string>> Resolve(const std::vector<Endpoint>& endpoints) {
  std::vector<std::string> addresses;
  for (const Endpoint& endpoint : endpoints) {
    if (endpoint.dns) {
      RETURN_IF_ERROR(LookUp(endpoint.address, &addresses));
    } else {
      addresses.push_back(endpoint.address);
    }
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

}  // namespace hanlin
