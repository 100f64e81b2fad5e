// Two caps on what the gateway takes in: requests, and prompt tokens that no first token has come
// back for. Beyond a cap a request is refused at once with RESOURCE_EXHAUSTED and the time after
// which one has probably ended, estimated from the rate at which requests ended lately.
// A Ticket returns what it holds when it goes. Thread-safe; tickets must not outlive the Admission.
#ifndef HANLIN_GATEWAY_ADMISSION_H_
#define HANLIN_GATEWAY_ADMISSION_H_

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace hanlin {

class Admission {
 public:
  struct Options {
    int64_t max_requests = 1024;
    int64_t max_prompt_tokens = 1 << 20;
    absl::Time (*clock)() = &absl::Now;
  };

  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept { *this = std::move(other); }
    Ticket& operator=(Ticket&& other) noexcept {
      if (this == &other) return *this;
      Release();
      admission_ = std::exchange(other.admission_, nullptr);
      requests_ = std::exchange(other.requests_, 0);
      prompt_tokens_ = std::exchange(other.prompt_tokens_, 0);
      return *this;
    }
    ~Ticket() { Release(); }
    void Release();

   private:
    friend class Admission;
    Ticket(Admission* admission, int64_t requests, int64_t prompt_tokens)
        : admission_(admission), requests_(requests), prompt_tokens_(prompt_tokens) {}

    Admission* admission_ = nullptr;
    int64_t requests_ = 0;
    int64_t prompt_tokens_ = 0;
  };

  explicit Admission(Options options) : options_(options) {}

  // RESOURCE_EXHAUSTED with a retry hint (common/rpc/status.h) when the cap is reached.
  absl::StatusOr<Ticket> AdmitRequests(int64_t requests);
  // The same for prompt tokens. A prompt beyond the whole cap is taken when nothing else waits.
  absl::StatusOr<Ticket> AdmitPromptTokens(int64_t prompt_tokens);

  int64_t requests() const;
  int64_t prompt_tokens() const;

 private:
  void Return(int64_t requests, int64_t prompt_tokens);
  absl::Duration RetryDelay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  int64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t prompt_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  // Mean time between two ends of requests while there are any, exponentially weighted: a quiet
  // spell says nothing about how soon a busy gateway has room again.
  absl::Time since_ ABSL_GUARDED_BY(mutex_) =
      absl::InfinitePast();  // last end, or end of a quiet spell
  absl::Duration mean_interval_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_ADMISSION_H_
