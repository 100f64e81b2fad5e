// See admission.h.
#include "gateway/admission.h"

#include <algorithm>

#include "common/rpc/status.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// A hint shorter than this makes clients hammer, one longer than that leaves capacity idle.
constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(50);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);
// Before anything has ended there is nothing to estimate from.
constexpr absl::Duration kDefaultRetryDelay = absl::Seconds(1);
// Weight of the newest interval; about the last 16 requests count.
constexpr double kWeight = 1.0 / 16;

}  // namespace

void Admission::Ticket::Release() {
  if (admission_ != nullptr) admission_->Return(requests_, prompt_tokens_);
  admission_ = nullptr;
}

absl::StatusOr<Admission::Ticket> Admission::AdmitRequests(int64_t requests) {
  absl::MutexLock lock(&mutex_);
  if (requests > options_.max_requests) {  // No retry hint: it would never fit.
    return ResourceExhausted("the call brings {} requests, want at most {} at once", requests,
                             options_.max_requests);
  }
  if (requests_ + requests > options_.max_requests) {
    return WithRetryAfter(ResourceExhausted("{} requests are in the gateway, want at most {}",
                                            requests_, options_.max_requests),
                          RetryDelay());
  }
  if (requests_ == 0) since_ = options_.clock();
  requests_ += requests;
  return Ticket(this, requests, 0);
}

absl::StatusOr<Admission::Ticket> Admission::AdmitPromptTokens(int64_t prompt_tokens) {
  absl::MutexLock lock(&mutex_);
  if (prompt_tokens_ > 0 && prompt_tokens_ + prompt_tokens > options_.max_prompt_tokens) {
    return WithRetryAfter(
        ResourceExhausted("{} prompt tokens wait in the gateway, this prompt has {}, want at most "
                          "{} in all",
                          prompt_tokens_, prompt_tokens, options_.max_prompt_tokens),
        RetryDelay());
  }
  prompt_tokens_ += prompt_tokens;
  return Ticket(this, 0, prompt_tokens);
}

int64_t Admission::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

int64_t Admission::prompt_tokens() const {
  absl::MutexLock lock(&mutex_);
  return prompt_tokens_;
}

void Admission::Return(int64_t requests, int64_t prompt_tokens) {
  absl::MutexLock lock(&mutex_);
  requests_ -= requests;
  prompt_tokens_ -= prompt_tokens;
  if (requests == 0) return;
  const absl::Time now = options_.clock();
  const absl::Duration interval = (now - since_) / requests;
  mean_interval_ = mean_interval_ == absl::ZeroDuration()
                       ? interval
                       : mean_interval_ * (1 - kWeight) + interval * kWeight;
  since_ = now;
}

absl::Duration Admission::RetryDelay() const {
  if (mean_interval_ == absl::ZeroDuration()) return kDefaultRetryDelay;
  return std::clamp(mean_interval_, kMinRetryDelay, kMaxRetryDelay);
}

}  // namespace hanlin
