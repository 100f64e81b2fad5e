// The receiving end of systemd's notifications (sd_notify(3)): a datagram socket whose messages
// carry the sender's process id, as the kernel vouches for it. Not thread-safe.
#ifndef HANLIN_CLI_SERVE_NOTIFY_SOCKET_H_
#define HANLIN_CLI_SERVE_NOTIFY_SOCKET_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/net/socket.h"

namespace hanlin::cli {

class NotifySocket {
 public:
  // Under a name of the abstract name space that the kernel picks: no file is left behind.
  static absl::StatusOr<NotifySocket> Create();

  int fd() const { return fd_.get(); }
  // For the children's NOTIFY_SOCKET.
  const std::string& address() const { return address_; }

  // Hands out what has arrived, without waiting.
  void Read(const std::function<void(pid_t sender, std::string_view message)>& sink);

 private:
  NotifySocket(FileDescriptor fd, std::string address)
      : fd_(std::move(fd)), address_(std::move(address)) {}

  FileDescriptor fd_;
  std::string address_;
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_SERVE_NOTIFY_SOCKET_H_
