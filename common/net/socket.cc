// See socket.h.
#include "common/net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "absl/time/clock.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int kSocketFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
constexpr std::string_view kUnixPrefix = "unix:";

struct Endpoint {
  sockaddr_storage address = {};
  socklen_t length = 0;
};

absl::StatusOr<Endpoint> UnixEndpoint(const std::string& path) {
  Endpoint endpoint;
  auto* unix_address = reinterpret_cast<sockaddr_un*>(&endpoint.address);
  if (path.empty() || path.size() >= sizeof(unix_address->sun_path)) {
    return InvalidArgument("unix socket path of {} bytes, want 1 to {}", path.size(),
                           sizeof(unix_address->sun_path) - 1);
  }
  unix_address->sun_family = AF_UNIX;
  std::memcpy(unix_address->sun_path, path.data(), path.size());
  endpoint.length = sizeof(sockaddr_un);
  return endpoint;
}

absl::StatusOr<std::vector<Endpoint>> Resolve(const std::string& address) {
  if (address.starts_with(kUnixPrefix)) {
    ASSIGN_OR_RETURN(const Endpoint endpoint, UnixEndpoint(address.substr(kUnixPrefix.size())));
    return std::vector<Endpoint>{endpoint};
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return InvalidArgument("address \"{}\", want HOST:PORT, [IPV6]:PORT or unix:/path", address);
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  const std::string port = address.substr(colon + 1);
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* results = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &results); error != 0) {
    return Unavailable("address \"{}\": {}", address, gai_strerror(error));
  }
  std::vector<Endpoint> endpoints;
  for (const addrinfo* item = results; item != nullptr; item = item->ai_next) {
    Endpoint& endpoint = endpoints.emplace_back();
    std::memcpy(&endpoint.address, item->ai_addr, item->ai_addrlen);
    endpoint.length = item->ai_addrlen;
  }
  freeaddrinfo(results);
  return endpoints;
}

// Waits until `fd` is ready for `events`; false at the deadline.
bool PollUntil(int fd, short events, absl::Time deadline) {
  for (;;) {
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd entry = {fd, events, 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

// One attempt; the error text is empty on success.
std::string TryConnect(const Endpoint& endpoint, absl::Time deadline, FileDescriptor* socket) {
  FileDescriptor fd(::socket(endpoint.address.ss_family, kSocketFlags, 0));
  if (!fd.valid()) return std::strerror(errno);
  const auto* address = reinterpret_cast<const sockaddr*>(&endpoint.address);
  if (connect(fd.get(), address, endpoint.length) != 0) {
    if (errno != EINPROGRESS) return std::strerror(errno);
    if (!PollUntil(fd.get(), POLLOUT, deadline)) return "no answer";
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return std::strerror(error);
  }
  *socket = std::move(fd);
  return "";
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<FileDescriptor> ListenOn(const std::string& address) {
  ASSIGN_OR_RETURN(const std::vector<Endpoint> endpoints, Resolve(address));
  std::string error = "no address";
  for (const Endpoint& endpoint : endpoints) {
    FileDescriptor fd(::socket(endpoint.address.ss_family, kSocketFlags, 0));
    const int on = 1;
    if (fd.valid()) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address.starts_with(kUnixPrefix)) unlink(address.c_str() + kUnixPrefix.size());
    if (fd.valid() &&
        bind(fd.get(), reinterpret_cast<const sockaddr*>(&endpoint.address), endpoint.length) ==
            0 &&
        listen(fd.get(), 64) == 0) {
      return fd;
    }
    error = std::strerror(errno);
  }
  return FailedPrecondition("cannot listen on {}: {}", address, error);
}

absl::StatusOr<std::string> LocalAddress(const FileDescriptor& listener) {
  sockaddr_storage address = {};
  socklen_t length = sizeof(address);
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return Internal("getsockname: {}", std::strerror(errno));
  }
  std::array<char, INET6_ADDRSTRLEN> host = {};
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, host.data(), host.size());
    return fmt::format("{}:{}", host.data(), ntohs(v4->sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &v6->sin6_addr, host.data(), host.size());
    return fmt::format("[{}]:{}", host.data(), ntohs(v6->sin6_port));
  }
  return fmt::format("unix:{}", reinterpret_cast<const sockaddr_un*>(&address)->sun_path);
}

absl::StatusOr<FileDescriptor> ConnectTo(const std::string& address, absl::Time deadline) {
  std::string error;
  do {
    const auto endpoints = Resolve(address);
    if (absl::IsInvalidArgument(endpoints.status())) return endpoints.status();
    if (!endpoints.ok()) error = Message(endpoints.status());
    for (const Endpoint& endpoint : endpoints.ok() ? *endpoints : std::vector<Endpoint>()) {
      FileDescriptor socket;
      error = TryConnect(endpoint, deadline, &socket);
      if (error.empty()) return socket;
    }
    absl::SleepFor(
        std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Milliseconds(20)));
  } while (absl::Now() < deadline);
  return DeadlineExceeded("cannot connect to {}: {}", address, error);
}

absl::Status SendAll(const FileDescriptor& socket, std::string_view bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(sent);
    } else if (errno == EAGAIN) {
      if (!PollUntil(socket.get(), POLLOUT, deadline)) {
        return DeadlineExceeded("peer does not read, {} bytes left", bytes.size());
      }
    } else if (errno != EINTR) {
      return Unavailable("peer is gone: {}", std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(const FileDescriptor& socket, char* bytes, size_t size,
                        absl::Time deadline) {
  while (size > 0) {
    const ssize_t received = recv(socket.get(), bytes, size, 0);
    if (received > 0) {
      bytes += received;
      size -= received;
    } else if (received == 0) {
      return Unavailable("peer closed the connection, {} bytes missing", size);
    } else if (errno == EAGAIN) {
      if (!PollUntil(socket.get(), POLLIN, deadline)) {
        return DeadlineExceeded("peer is silent, {} bytes missing", size);
      }
    } else if (errno != EINTR) {
      return Unavailable("peer is gone: {}", std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

absl::Status SendFrame(const FileDescriptor& socket, std::string_view bytes, absl::Time deadline) {
  if (bytes.size() > kMaxFrameBytes) {
    return InvalidArgument("frame of {} bytes, want at most {}", bytes.size(), kMaxFrameBytes);
  }
  const uint32_t length = static_cast<uint32_t>(bytes.size());
  std::string frame(reinterpret_cast<const char*>(&length), sizeof(length));
  return SendAll(socket, frame.append(bytes), deadline);
}

absl::StatusOr<std::string> ReceiveFrame(const FileDescriptor& socket, absl::Time deadline) {
  uint32_t length = 0;
  RETURN_IF_ERROR(ReceiveAll(socket, reinterpret_cast<char*>(&length), sizeof(length), deadline));
  if (length > kMaxFrameBytes) {
    return InvalidArgument("frame of {} bytes, want at most {}", length, kMaxFrameBytes);
  }
  std::string bytes(length, '\0');
  RETURN_IF_ERROR(ReceiveAll(socket, bytes.data(), length, deadline));
  return bytes;
}

}  // namespace hanlin
