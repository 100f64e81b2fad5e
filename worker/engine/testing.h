// For tests of the engine: a sink that records the events of its requests and lets a test wait for
// their ends.
#ifndef HANLIN_WORKER_ENGINE_TESTING_H_
#define HANLIN_WORKER_ENGINE_TESTING_H_

#include <atomic>
#include <map>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/request.h"

namespace hanlin::testing {

// All that was said about one request.
struct Recorded {
  std::vector<int32_t> ids;
  std::vector<PositionLogprobs> logprobs;
  int events = 0;
  bool done = false;
  RequestEvent last;
};

class RecordingSink : public EventSink {
 public:
  void OnEvents(std::span<RequestEvent> events) override {
    absl::MutexLock lock(&mutex_);
    ++batches_;
    for (RequestEvent& event : events) {
      Recorded& request = requests_[event.id];
      if (request.done) ++events_after_the_last_;
      ++request.events;
      request.ids.insert(request.ids.end(), event.ids.begin(), event.ids.end());
      request.logprobs.insert(request.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
      if (event.last()) {
        request.done = true;
        request.last = std::move(event);
      }
    }
  }
  bool Ready() const override { return ready.load(); }

  // Waits for the end of request `id`; a copy of what is known when it came or `timeout` was over.
  Recorded WaitFor(uint64_t id, absl::Duration timeout = absl::Seconds(20)) {
    absl::MutexLock lock(&mutex_);
    const auto done = [&] { return requests_[id].done; };
    mutex_.AwaitWithTimeout(absl::Condition(&done), timeout);
    return requests_[id];
  }
  // Waits until request `id` has at least `count` ids; false when that takes too long.
  bool WaitForIds(uint64_t id, size_t count, absl::Duration timeout = absl::Seconds(20)) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return requests_[id].ids.size() >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), timeout);
  }
  Recorded Get(uint64_t id) { return WaitFor(id, absl::ZeroDuration()); }
  int batches() {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }
  int events_after_the_last() {
    absl::MutexLock lock(&mutex_);
    return events_after_the_last_;
  }

  std::atomic<bool> ready = true;

 private:
  absl::Mutex mutex_;
  std::map<uint64_t, Recorded> requests_;
  int batches_ = 0;
  int events_after_the_last_ = 0;
};

}  // namespace hanlin::testing

#endif  // HANLIN_WORKER_ENGINE_TESTING_H_
