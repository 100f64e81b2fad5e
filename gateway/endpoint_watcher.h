// Keeps a set of addresses up to date: resolves the endpoints at the start and, when a DNS name is
// among them, every few seconds on a thread of its own. The callback gets the whole set each time
// it differs from the one before; a name that cannot be resolved leaves the set as it is.
// Thread-safe; no callback runs once the destructor has returned.
#ifndef HANLIN_GATEWAY_ENDPOINT_WATCHER_H_
#define HANLIN_GATEWAY_ENDPOINT_WATCHER_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gateway/endpoints.h"

namespace hanlin {

class EndpointWatcher {
 public:
  using Callback = std::function<void(const std::vector<std::string>& addresses)>;

  EndpointWatcher(std::vector<Endpoint> endpoints, absl::Duration interval, Callback callback);
  ~EndpointWatcher();

 private:
  void Update();
  void Watch();

  const std::vector<Endpoint> endpoints_;
  const absl::Duration interval_;
  const Callback callback_;
  std::vector<std::string> addresses_;  // Touched by one thread at a time.
  std::string logged_failure_;
  absl::Notification stop_;
  std::thread thread_;  // Only when there is a name to look up.
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_ENDPOINT_WATCHER_H_
