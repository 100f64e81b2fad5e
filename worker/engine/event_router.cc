// See event_router.h.
#include "worker/engine/event_router.h"

#include "common/status/status.h"

namespace hanlin {

absl::Status EventRouter::Open(const std::shared_ptr<EventSink>& sink, uint64_t id) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(failure_);
  if (!open_.try_emplace(RequestKey(sink.get(), id), sink).second) {
    return InvalidArgument("id {} belongs to a request that is still open, want another", id);
  }
  return absl::OkStatus();
}

bool EventRouter::IsOpen(const RequestKey& key) const {
  absl::MutexLock lock(&mutex_);
  return open_.contains(key);
}

void EventRouter::Stage(EventSink* sink, RequestEvent event) {
  // Few sinks: gateways. The vectors keep their memory.
  for (Batch& batch : staged_) {
    if (batch.sink == sink) {
      batch.events.push_back(std::move(event));
      return;
    }
  }
  staged_.push_back({sink, {}});
  staged_.back().events.push_back(std::move(event));
}

void EventRouter::Flush() {
  absl::MutexLock lock(&mutex_);
  for (Batch& batch : staged_) {
    std::shared_ptr<EventSink> keep_alive;
    std::erase_if(batch.events, [&](const RequestEvent& event) {
      mutex_.AssertHeld();
      const auto it = open_.find(RequestKey(batch.sink, event.id));
      if (it == open_.end()) return true;
      if (keep_alive == nullptr) keep_alive = it->second;
      if (event.last()) open_.erase(it);
      return false;
    });
    if (!batch.events.empty()) batch.sink->OnEvents(batch.events);
    batch.events.clear();
  }
  // A sink of the past must not stay as a bare pointer: another may come to live at its address.
  std::erase_if(staged_, [&](const Batch& batch) {
    mutex_.AssertHeld();
    for (const auto& [key, sink] : open_) {
      if (key.first == batch.sink) return false;
    }
    return true;
  });
}

void EventRouter::CloseAll(const EventSink* sink) {
  absl::MutexLock lock(&mutex_);
  absl::erase_if(open_, [&](const auto& entry) { return entry.first.first == sink; });
}

bool EventRouter::FailAll(const absl::Status& failure) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return false;
  failure_ = failure;
  for (const auto& [key, sink] : open_) {
    RequestEvent event;
    event.id = key.second;
    event.error = failure;
    sink->OnEvents({&event, 1});
  }
  open_.clear();
  return true;
}

absl::Status EventRouter::failure() const {
  absl::MutexLock lock(&mutex_);
  return failure_;
}

bool EventRouter::WaitEmpty(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto empty = [this] {
    mutex_.AssertReaderHeld();
    return open_.empty();
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&empty), timeout);
}

size_t EventRouter::num_open() const {
  absl::MutexLock lock(&mutex_);
  return open_.size();
}

}  // namespace hanlin
