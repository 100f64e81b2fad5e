// SIGTERM and SIGINT as events. Make one ShutdownSignal first in main, before any thread: it blocks
// both signals for the whole process and waits for them on a thread of its own. The first asks for
// a drain; one that comes 200 ms later or more ends the process at once with exit code 1.
// Thread-safe.
#ifndef HANLIN_COMMON_RPC_SHUTDOWN_H_
#define HANLIN_COMMON_RPC_SHUTDOWN_H_

#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace hanlin {

class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();

  // Blocks until the first signal or Trigger().
  void Wait() { notified_.WaitForNotification(); }
  // True when it came within `timeout`.
  bool WaitFor(absl::Duration timeout) { return notified_.WaitForNotificationWithTimeout(timeout); }
  bool Requested() const { return notified_.HasBeenNotified(); }
  // As if the first signal had come.
  void Trigger();

 private:
  void Listen();

  absl::Notification notified_;
  int event_fd_;  // wakes the thread for the destructor or Trigger
  int signal_fd_;
  std::thread thread_;
};

// Asks the kernel to send SIGTERM to this process when its parent dies (for children of a
// supervisor).
void DieWithParent();

}  // namespace hanlin

#endif  // HANLIN_COMMON_RPC_SHUTDOWN_H_
