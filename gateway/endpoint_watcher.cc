// See endpoint_watcher.h.
#include "gateway/endpoint_watcher.h"

#include <algorithm>
#include <utility>

#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin {

EndpointWatcher::EndpointWatcher(std::vector<Endpoint> endpoints, absl::Duration interval,
                                 Callback callback)
    : endpoints_(std::move(endpoints)), interval_(interval), callback_(std::move(callback)) {
  if (std::any_of(endpoints_.begin(), endpoints_.end(), [](const Endpoint& e) { return e.dns; })) {
    thread_ = std::thread([this] { Watch(); });
  } else {
    Update();
  }
}

EndpointWatcher::~EndpointWatcher() {
  stop_.Notify();
  if (thread_.joinable()) thread_.join();
}

void EndpointWatcher::Watch() {
  do {
    Update();
  } while (!stop_.WaitForNotificationWithTimeout(interval_));
}

void EndpointWatcher::Update() {
  absl::StatusOr<std::vector<std::string>> addresses = Resolve(endpoints_);
  const std::string failure = addresses.ok() ? "" : Message(addresses.status());
  if (failure != logged_failure_ && !failure.empty()) {
    Log(LogLevel::kWarning, "name look-up failed", {{"reason", failure}});
  }
  logged_failure_ = failure;
  if (!addresses.ok() || *addresses == addresses_) return;
  addresses_ = *std::move(addresses);
  callback_(addresses_);
}

}  // namespace hanlin
