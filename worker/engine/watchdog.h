// Looks whether work that was begun makes progress: health means forward motion, not a live
// process. The worked-on thread says when it is busy; while it is, the progress counter has to
// change within the timeout. Thread-safe.
#ifndef HANLIN_WORKER_ENGINE_WATCHDOG_H_
#define HANLIN_WORKER_ENGINE_WATCHDOG_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace hanlin {

class Watchdog {
 public:
  // `progress` must outlive the watchdog. `on_stall` is called once, from the watchdog's thread.
  Watchdog(const std::atomic<uint64_t>* progress, absl::Duration timeout,
           std::function<void(absl::Duration)> on_stall);
  ~Watchdog();

  void SetBusy(bool busy) { busy_.store(busy, std::memory_order_relaxed); }

 private:
  void Watch();

  const std::atomic<uint64_t>& progress_;
  const absl::Duration timeout_;
  const std::function<void(absl::Duration)> on_stall_;
  std::atomic<bool> busy_ = false;
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_WATCHDOG_H_
