// See service_notifier.h.
#include "common/host/service_notifier.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "absl/time/time.h"

namespace hanlin {
namespace {

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Never waits: a manager that does not read must not hold up the service.
void Send(std::string_view message) {
  const std::string_view path = Environment("NOTIFY_SOCKET");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() < 2 || path.size() > sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // of the abstract name space
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  sendto(fd, message.data(), message.size(), MSG_NOSIGNAL,
         reinterpret_cast<const sockaddr*>(&address), size);
  close(fd);
}

// Zero: no watchdog is asked for.
absl::Duration WatchdogInterval() {
  const std::string_view text = Environment("WATCHDOG_USEC");
  int64_t microseconds = 0;
  std::from_chars(text.data(), text.data() + text.size(), microseconds);
  return absl::Microseconds(std::max<int64_t>(microseconds, 0)) / 3;
}

}  // namespace

ServiceNotifier::ServiceNotifier() {
  if (Environment("NOTIFY_SOCKET").empty()) return;
  Send("READY=1");
  const absl::Duration interval = WatchdogInterval();
  if (interval == absl::ZeroDuration()) return;
  thread_ = std::thread([this, interval] {
    do {
      Send("WATCHDOG=1");
    } while (!stop_.WaitForNotificationWithTimeout(interval));
  });
}

ServiceNotifier::~ServiceNotifier() {
  stop_.Notify();
  if (thread_.joinable()) thread_.join();
}

}  // namespace hanlin
