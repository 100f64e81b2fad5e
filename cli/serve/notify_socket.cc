// See notify_socket.h.
#include "cli/serve/notify_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "common/status/status.h"

namespace hanlin::cli {

absl::StatusOr<NotifySocket> NotifySocket::Create() {
  FileDescriptor fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(sa_family_t);  // no path: the kernel picks a name
  if (!fd.valid() || setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return Internal("no socket for the children's notifications: {}", strerror(errno));
  }
  size = sizeof(address);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Internal("the notification socket has no name: {}", strerror(errno));
  }
  std::string name(address.sun_path, size - offsetof(sockaddr_un, sun_path));
  name[0] = '@';
  return NotifySocket(std::move(fd), std::move(name));
}

void NotifySocket::Read(const std::function<void(pid_t, std::string_view)>& sink) {
  while (true) {
    char text[256];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
    iovec part = {text, sizeof(text)};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS) continue;
      ucred sender;
      std::memcpy(&sender, CMSG_DATA(c), sizeof(sender));
      sink(sender.pid, {text, static_cast<size_t>(size)});
    }
  }
}

}  // namespace hanlin::cli
