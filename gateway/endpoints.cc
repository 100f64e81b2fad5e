// See endpoints.h.
#include "gateway/endpoints.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "common/net/address.h"
#include "common/net/dns.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr std::string_view kDnsScheme = "dns://";
constexpr absl::Duration kLookUpTimeout = absl::Seconds(3);

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view flag, std::string_view text) {
  Endpoint endpoint{.address = std::string(text), .dns = text.starts_with(kDnsScheme)};
  if (!IsServerAddress(text)) {
    return InvalidArgument("{} holds \"{}\", want HOST:PORT, unix:PATH or dns:///NAME:PORT", flag,
                           text);
  }
  if (endpoint.dns) {
    const std::string_view rest = text.substr(kDnsScheme.size());
    const size_t slash = rest.find('/');
    endpoint.dns_server = rest.substr(0, slash);
    endpoint.address = rest.substr(slash + 1);
  }
  return endpoint;
}

absl::Status LookUp(const Endpoint& endpoint, std::vector<std::string>* out) {
  const std::string name = endpoint.address.substr(0, endpoint.address.rfind(':'));
  ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                   ResolveName(name, PortOf(endpoint.address), endpoint.dns_server,
                               absl::Now() + kLookUpTimeout));
  out->insert(out->end(), addresses.begin(), addresses.end());
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
      RETURN_IF_ERROR(LookUp(endpoint, &addresses));
    } else {
      addresses.push_back(endpoint.address);
    }
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

}  // namespace hanlin
