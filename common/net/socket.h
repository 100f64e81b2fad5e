// Stream sockets with deadlines, for the few bytes that ranks say to each other before gRPC or
// shared memory take over. Addresses: "HOST:PORT" (IPv4 or a name), "[IPv6]:PORT", "unix:/path".
// Every call ends by its deadline. Thread safety: none per descriptor; different descriptors are
// independent.
#ifndef HANLIN_COMMON_NET_SOCKET_H_
#define HANLIN_COMMON_NET_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace hanlin {

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// A listening, non-blocking socket. Port 0 picks one. A stale unix socket file is replaced.
// FAILED_PRECONDITION names an address that is in use or not of this machine.
absl::StatusOr<FileDescriptor> ListenOn(const std::string& address);

// The address a listener got, in the form that ConnectTo takes.
absl::StatusOr<std::string> LocalAddress(const FileDescriptor& listener);

// Connects, trying again while nobody listens yet. DEADLINE_EXCEEDED names the address and the last
// error.
absl::StatusOr<FileDescriptor> ConnectTo(const std::string& address, absl::Time deadline);

// All of `bytes`, or an error: UNAVAILABLE when the peer closed, DEADLINE_EXCEEDED when it is too
// slow.
absl::Status SendAll(const FileDescriptor& socket, std::string_view bytes, absl::Time deadline);
absl::Status ReceiveAll(const FileDescriptor& socket, char* bytes, size_t size,
                        absl::Time deadline);

// A frame: uint32 length, then the bytes. Longer frames than kMaxFrameBytes are refused on both
// sides.
inline constexpr uint32_t kMaxFrameBytes = 1 << 16;
absl::Status SendFrame(const FileDescriptor& socket, std::string_view bytes, absl::Time deadline);
absl::StatusOr<std::string> ReceiveFrame(const FileDescriptor& socket, absl::Time deadline);

}  // namespace hanlin

#endif  // HANLIN_COMMON_NET_SOCKET_H_
