// See acceptor.h.
#include "common/rpc/acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int kBacklog = 1024;
// Descriptors that stay free for the process itself: files, and channels to other services.
constexpr int kReservedDescriptors = 16;
// Between two tries to accept while no descriptor is free.
constexpr absl::Duration kRetryInterval = absl::Milliseconds(10);
// The list of connections is cleared of closed ones whenever it has doubled from this.
constexpr size_t kMinConnections = 64;
constexpr absl::Duration kWarningInterval = absl::Seconds(5);
// Of many connections more than one is closed at a time: one in this many.
constexpr size_t kShareClosed = 64;

int DescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
}

std::optional<uint64_t> Cookie(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return std::nullopt;
  return cookie;
}

// Milliseconds since a byte last came or went.
uint32_t Silence(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  return std::min(info.tcpi_last_data_recv, info.tcpi_last_data_sent);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Create(const std::string& address) {
  auto acceptor = std::unique_ptr<Acceptor>(new Acceptor);
  ASSIGN_OR_RETURN(acceptor->listener_, ListenOn(address));
  ASSIGN_OR_RETURN(const std::string bound, LocalAddress(acceptor->listener_));
  acceptor->address_ = address.substr(0, address.rfind(':')) + bound.substr(bound.rfind(':'));
  acceptor->stop_event_ = FileDescriptor(eventfd(0, EFD_CLOEXEC));
  if (!acceptor->stop_event_.valid()) return Unavailable("no descriptor is left for an event");
  // Accepted sockets inherit it. Tokens are small messages that must not wait for each other.
  const int on = 1;
  setsockopt(acceptor->listener_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (listen(acceptor->listener_.get(), kBacklog) != 0) {
    return Unavailable("cannot listen on {}", address);
  }
  return acceptor;
}

Acceptor::~Acceptor() { Stop(); }

void Acceptor::Start(Handler handler) {
  handler_ = std::move(handler);
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(stop_event_.get(), &one, sizeof(one));
    thread_.join();
  }
  listener_ = FileDescriptor();
}

void Acceptor::Run() {
  pollfd events[] = {{.fd = stop_event_.get(), .events = POLLIN},
                     {.fd = listener_.get(), .events = POLLIN}};
  while (true) {
    poll(events, 2, -1);
    if (events[0].revents != 0) return;
    AcceptAll();
  }
}

void Acceptor::AcceptAll() {
  const int last_good = DescriptorLimit() - kReservedDescriptors;
  while (true) {
    const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
      CloseLongestSilent();
      // Those in the queue wait until gRPC's threads have closed what was shut down.
      absl::SleepFor(kRetryInterval);
      return;
    }
    if (fd > last_good) CloseLongestSilent();
    connections_.push_back({fd, Cookie(fd).value_or(0)});
    if (connections_.size() >= 2 * std::max(known_open_, kMinConnections)) ForgetClosed();
    handler_(fd);
  }
}

void Acceptor::ForgetClosed() {
  std::erase_if(connections_, [](const Connection& c) { return Cookie(c.fd) != c.cookie; });
  known_open_ = connections_.size();
}

void Acceptor::CloseLongestSilent() {
  ForgetClosed();
  if (connections_.empty()) return;
  const size_t count = 1 + connections_.size() / kShareClosed;
  std::vector<std::pair<uint32_t, Connection>> by_silence;
  by_silence.reserve(connections_.size());
  for (const Connection& connection : connections_) {
    by_silence.push_back({Silence(connection.fd), connection});
  }
  std::partial_sort(by_silence.begin(), by_silence.begin() + count, by_silence.end(),
                    [](const auto& a, const auto& b) { return a.first > b.first; });
  // gRPC sees the end of the connection and closes the descriptor.
  for (size_t i = 0; i < count; ++i) shutdown(by_silence[i].second.fd, SHUT_RDWR);
  if (absl::Now() - last_warning_ < kWarningInterval) return;
  last_warning_ = absl::Now();
  Log(LogLevel::kWarning, "few descriptors are left: the longest silent connections are closed",
      {{"connections", connections_.size()},
       {"closed", count},
       {"silent_ms", by_silence[0].first}});
}

}  // namespace hanlin
