// Tells whoever started this process that it serves and lives, by systemd's protocol
// (sd_notify(3)): READY=1 once, then WATCHDOG=1 three times per WATCHDOG_USEC from a thread of its
// own, as datagrams to NOTIFY_SOCKET. Without these variables it does nothing. A process that was
// stopped, or whose machine's memory thrashes, falls silent, and the service manager starts it
// again.
//
// Thread-safe: it has no calls.
#ifndef HANLIN_COMMON_HOST_SERVICE_NOTIFIER_H_
#define HANLIN_COMMON_HOST_SERVICE_NOTIFIER_H_

#include <thread>

#include "absl/synchronization/notification.h"

namespace hanlin {

class ServiceNotifier {
 public:
  ServiceNotifier();
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

 private:
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_HOST_SERVICE_NOTIFIER_H_
