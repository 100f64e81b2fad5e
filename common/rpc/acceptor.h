// Accepts the TCP connections of an RpcServer in gRPC's place. gRPC 1.51 stops listening for good
// when accept() finds no free descriptor (CVE-2023-4785), so idle clients could shut a server out
// of the world while its old connections look healthy. Here descriptors are watched: the kernel
// hands out the lowest free number, so a number near the limit says that few are left, and the
// connection that has been silent for longest is closed to make room. When there is none left all
// the same, new connections wait in the kernel's queue.
//
// Thread-safe after Create. One thread, which sleeps while nobody connects.
#ifndef HANLIN_COMMON_RPC_ACCEPTOR_H_
#define HANLIN_COMMON_RPC_ACCEPTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/socket.h"

namespace hanlin {

class Acceptor {
 public:
  // Takes over a connected, non-blocking socket. Called on the acceptor's thread.
  using Handler = std::function<void(int fd)>;

  // Listens on HOST:PORT (port 0 picks one). FAILED_PRECONDITION when it is in use.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Create(const std::string& address);
  // Stops listening. Connections that were handed over stay.
  ~Acceptor();

  // HOST:PORT with the host as given and the real port.
  const std::string& address() const { return address_; }
  // Starts accepting; connections made since Create have waited for it.
  void Start(Handler handler);
  // Stops listening. Idempotent.
  void Stop();

 private:
  // A connection handed over. Its descriptor may have been closed and given to another file since:
  // the socket's cookie tells.
  struct Connection {
    int fd;
    uint64_t cookie;
  };

  Acceptor() = default;
  void Run();
  void AcceptAll();
  void ForgetClosed();
  void CloseLongestSilent();

  std::string address_;
  FileDescriptor listener_;
  FileDescriptor stop_event_;
  Handler handler_;
  // Touched by the thread only.
  std::vector<Connection> connections_;  // open ones, and some that were closed since
  absl::Time last_warning_ = absl::InfinitePast();
  size_t known_open_ = 0;  // of them, when last looked at
  std::thread thread_;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_ACCEPTOR_H_
