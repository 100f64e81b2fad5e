// See watchdog.h.
#include "worker/engine/watchdog.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace hanlin {

Watchdog::Watchdog(const std::atomic<uint64_t>* progress, absl::Duration timeout,
                   std::function<void(absl::Duration)> on_stall)
    : progress_(*progress), timeout_(timeout), on_stall_(std::move(on_stall)) {
  thread_ = std::thread([this] { Watch(); });
}

Watchdog::~Watchdog() {
  stop_.Notify();
  thread_.join();
}

void Watchdog::Watch() {
  const absl::Duration interval =
      std::clamp(timeout_ / 10, absl::Milliseconds(10), absl::Seconds(1));
  uint64_t seen = progress_.load(std::memory_order_relaxed);
  absl::Time since = absl::Now();
  while (!stop_.WaitForNotificationWithTimeout(interval)) {
    const uint64_t now = progress_.load(std::memory_order_relaxed);
    if (now != seen || !busy_.load(std::memory_order_relaxed)) {
      seen = now;
      since = absl::Now();
    } else if (absl::Now() - since > timeout_) {
      on_stall_(absl::Now() - since);
      return;
    }
  }
}

}  // namespace hanlin
