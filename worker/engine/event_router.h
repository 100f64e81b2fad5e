// Which requests are open, and the way their events take to the sinks: staged during a step, then
// handed to each sink at once. Ends everything when the engine fails, whatever the engine's thread
// is stuck in.
//
// Thread safety: all methods may be called from any thread but Stage and Flush, which are the
// engine's. Sinks are called under the router's lock, so none hears anything after CloseAll has
// returned.
#ifndef HANLIN_WORKER_ENGINE_EVENT_ROUTER_H_
#define HANLIN_WORKER_ENGINE_EVENT_ROUTER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/request.h"

namespace hanlin {

// Names an open request. The sink is only compared.
using RequestKey = std::pair<const EventSink*, uint64_t>;

class EventRouter {
 public:
  // INVALID_ARGUMENT when the sink has an open request of this id, the failure when there was one.
  absl::Status Open(const std::shared_ptr<EventSink>& sink, uint64_t id);
  bool IsOpen(const RequestKey& key) const;

  // Adds an event of `sink` to the present step.
  void Stage(EventSink* sink, RequestEvent event);
  // Delivers what was staged for open requests, and closes those whose event is last().
  void Flush();

  // Closes the requests of `sink`: no event of them is delivered any more.
  void CloseAll(const EventSink* sink);
  // Ends all open requests with `failure`. The first call wins; true for it.
  bool FailAll(const absl::Status& failure);
  // OK, or what FailAll was given.
  absl::Status failure() const;

  // True when nothing is open within `timeout`.
  bool WaitEmpty(absl::Duration timeout) const;
  size_t num_open() const;

 private:
  struct Batch {
    EventSink* sink;
    std::vector<RequestEvent> events;
  };

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<RequestKey, std::shared_ptr<EventSink>> open_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::vector<Batch> staged_;  // the engine's thread only
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_EVENT_ROUTER_H_
