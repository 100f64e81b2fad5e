// See dns.h. One c-ares channel for each look-up: they are seconds apart, and a new channel reads
// /etc/resolv.conf again.
#include "common/net/dns.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "absl/time/clock.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int kTryTimeoutMs = 1000;  // c-ares doubles it with each try
constexpr int kTries = 2;

struct FreeChannel {
  void operator()(ares_channel channel) const { ares_destroy(channel); }
};
using Channel = std::unique_ptr<std::remove_pointer_t<ares_channel>, FreeChannel>;

struct Answer {
  std::optional<int> code;  // once there is one
  std::vector<std::string> addresses;
};

std::string FormatAddress(const ares_addrinfo_node& node) {
  char text[INET6_ADDRSTRLEN] = {};
  if (node.ai_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(node.ai_addr);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    return fmt::format("{}:{}", text, ntohs(v4->sin_port));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(node.ai_addr);
  inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
  return fmt::format("[{}]:{}", text, ntohs(v6->sin6_port));
}

void OnAnswer(void* argument, int code, int /*timeouts*/, ares_addrinfo* info) {
  auto* answer = static_cast<Answer*>(argument);
  answer->code = code;
  if (info == nullptr) return;
  for (const ares_addrinfo_node* node = info->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family == AF_INET || node->ai_family == AF_INET6) {
      answer->addresses.push_back(FormatAddress(*node));
    }
  }
  ares_freeaddrinfo(info);
}

absl::StatusOr<Channel> OpenAresChannel(const std::string& server) {
  char only_servers[] = "b";  // and not the hosts file
  ares_options options = {.timeout = kTryTimeoutMs, .tries = kTries};
  int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES;
  if (!server.empty()) {
    options.lookups = only_servers;
    mask |= ARES_OPT_LOOKUPS;
  }
  ares_channel raw = nullptr;
  if (const int code = ares_init_options(&raw, &options, mask); code != ARES_SUCCESS) {
    return Internal("the resolver does not start: {}", ares_strerror(code));
  }
  Channel channel(raw);
  if (!server.empty() && ares_set_servers_ports_csv(raw, server.c_str()) != ARES_SUCCESS) {
    return InvalidArgument("name server \"{}\", want IP:PORT", server);
  }
  return channel;
}

// Waits for the sockets of the channel or its next time-out, and lets it work.
void Process(ares_channel channel, absl::Duration limit) {
  ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
  const int mask = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
  pollfd fds[ARES_GETSOCK_MAXNUM];
  nfds_t count = 0;
  for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    const int events = (ARES_GETSOCK_READABLE(mask, i) ? POLLIN : 0) |
                       (ARES_GETSOCK_WRITABLE(mask, i) ? POLLOUT : 0);
    if (events != 0) fds[count++] = {sockets[i], static_cast<short>(events), 0};
  }
  timeval most = absl::ToTimeval(std::max(limit, absl::ZeroDuration()));
  timeval next = {};
  const absl::Duration wait = absl::DurationFromTimeval(*ares_timeout(channel, &most, &next));
  const int ready = poll(fds, count, static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
  if (ready <= 0) return ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  for (nfds_t i = 0; i < count; ++i) {
    if (fds[i].revents == 0) continue;
    const bool write_only = fds[i].revents == POLLOUT;
    ares_process_fd(channel, write_only ? ARES_SOCKET_BAD : fds[i].fd,
                    (fds[i].revents & POLLOUT) != 0 ? fds[i].fd : ARES_SOCKET_BAD);
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ResolveName(const std::string& name, int port,
                                                     const std::string& server,
                                                     absl::Time deadline) {
  ASSIGN_OR_RETURN(const Channel channel, OpenAresChannel(server));
  const ares_addrinfo_hints hints = {
      .ai_flags = ARES_AI_NUMERICSERV | ARES_AI_NOSORT,
      .ai_family = AF_UNSPEC,
      .ai_socktype = SOCK_STREAM,
  };
  Answer answer;
  ares_getaddrinfo(channel.get(), name.c_str(), std::to_string(port).c_str(), &hints, &OnAnswer,
                   &answer);
  while (!answer.code.has_value()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      ares_cancel(channel.get());  // Answers with ARES_ECANCELLED.
      return Unavailable("cannot resolve {}: no answer in time", name);
    }
    Process(channel.get(), left);
  }
  if (*answer.code != ARES_SUCCESS) {
    return Unavailable("cannot resolve {}: {}", name, ares_strerror(*answer.code));
  }
  if (answer.addresses.empty()) return Unavailable("cannot resolve {}: no address", name);
  return std::move(answer.addresses);
}

}  // namespace hanlin
