// The door of the engine's queue: two caps, and an estimate of when to come back. Thread-safe.
#ifndef HANLIN_WORKER_ENGINE_ADMISSION_H_
#define HANLIN_WORKER_ENGINE_ADMISSION_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace hanlin {

class Admission {
 public:
  struct Options {
    int32_t max_requests = 0;
    int64_t max_tokens = 0;
  };
  explicit Admission(const Options& options) : options_(options) {}

  // Takes a place in the queue for a request of `tokens`. RESOURCE_EXHAUSTED when a cap is reached,
  // but an empty queue takes any request; `retry_after` is then set.
  absl::Status Enter(int64_t tokens, absl::Duration* retry_after);
  // The request left the queue: it runs, or it ended while waiting.
  void Leave(int64_t tokens, absl::Time now);

 private:
  const Options options_;
  absl::Mutex mutex_;
  int32_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of the moments at which requests leave.
  absl::Time last_leave_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  double mean_interval_s_ ABSL_GUARDED_BY(mutex_) = 0.5;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_ADMISSION_H_
