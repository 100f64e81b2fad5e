// See admission.h.
#include "worker/engine/admission.h"

#include <algorithm>

#include "common/status/status.h"

namespace hanlin {
namespace {

// Weight of the newest interval in the running mean.
constexpr double kSmoothing = 0.1;
constexpr double kMinRetrySeconds = 0.1;
constexpr double kMaxRetrySeconds = 30;

}  // namespace

absl::Status Admission::Enter(int64_t tokens, absl::Duration* retry_after) {
  absl::MutexLock lock(&mutex_);
  const bool full = requests_ >= options_.max_requests;
  if (requests_ > 0 && (full || tokens_ + tokens > options_.max_tokens)) {
    // Half of the queue has left by then.
    *retry_after = absl::Seconds(
        std::clamp(mean_interval_s_ * (requests_ + 1) / 2, kMinRetrySeconds, kMaxRetrySeconds));
    if (full) {
      return ResourceExhausted("the queue holds {} requests, want fewer than {}", requests_,
                               options_.max_requests);
    }
    return ResourceExhausted(
        "the queue holds {} tokens and the request adds {}, want at most {} in all", tokens_,
        tokens, options_.max_tokens);
  }
  ++requests_;
  tokens_ += tokens;
  return absl::OkStatus();
}

void Admission::Leave(int64_t tokens, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  --requests_;
  tokens_ -= tokens;
  // Intervals of an idle queue say nothing about how fast a full one drains.
  if (requests_ > 0 && last_leave_ != absl::InfinitePast()) {
    const double interval = absl::ToDoubleSeconds(now - last_leave_);
    mean_interval_s_ += kSmoothing * (interval - mean_interval_s_);
  }
  last_leave_ = now;
}

}  // namespace hanlin
