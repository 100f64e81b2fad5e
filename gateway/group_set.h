// All worker groups: discovery, watching, choosing. A thread ticks the groups and the tokenizer
// client several times a second, tells requests that wait for a group when one is there, and
// reports whether the gateway can serve.
//
// Thread-safe. Lock order: a caller's, then a group's, then this one's (a leaf); callbacks run
// without locks. SetAddresses is called by one thread at a time.
#ifndef HANLIN_GATEWAY_GROUP_SET_H_
#define HANLIN_GATEWAY_GROUP_SET_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gateway/group_health.h"
#include "gateway/tokenizer_client.h"
#include "gateway/worker_group.h"

namespace hanlin {

class GroupSet {
 public:
  struct Options {
    // Model that groups must serve; empty = that of the first group that fits the tokenizer.
    std::string model;
    GroupHealth::Options health;
    std::shared_ptr<TokenizerClient> tokenizer;
    absl::Duration tick = absl::Milliseconds(25);
    // Called by the ticking thread every tick.
    std::function<void(const absl::Status& serving, int ready_groups)> on_tick;
  };
  explicit GroupSet(Options options);
  ~GroupSet();

  // The groups there are now; the ones not named any more finish what they have.
  void SetAddresses(const std::vector<std::string>& addresses);

  // The ready group with the least outstanding work that is not in `excluded`; null when none is.
  std::shared_ptr<WorkerGroup> Pick(std::span<const std::shared_ptr<WorkerGroup>> excluded = {});
  // Calls `then` once a group is ready or `until` has passed, whichever is first.
  void WhenReady(absl::Time until, std::function<void()> then);

  // OK when a request could be served now, else UNAVAILABLE naming what is missing.
  absl::Status Serving() const;
  int ready_groups() const;
  // Of the model served; nullopt before the first group has answered.
  std::optional<v1::GetWorkerInfoResponse> model_info() const;

 private:
  struct Waiter {
    absl::Time until;
    std::function<void()> then;
  };

  absl::Status Check(const v1::GetWorkerInfoResponse& info);
  void Run();
  void Tick(absl::Time now);
  void TickRetired(absl::Time now);
  void CallWaiters(absl::Time now, bool ready);
  std::vector<std::shared_ptr<WorkerGroup>> Snapshot() const;

  const Options options_;
  mutable absl::Mutex mutex_;
  std::vector<std::shared_ptr<WorkerGroup>> groups_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<WorkerGroup>> retired_ ABSL_GUARDED_BY(mutex_);
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<v1::GetWorkerInfoResponse> model_info_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_GROUP_SET_H_
