// See group_health.h.
#include "gateway/group_health.h"

#include <algorithm>

#include "common/status/status.h"

namespace hanlin {

void GroupHealth::BackOff(absl::Time now) {
  backoff_ = std::clamp(backoff_ * 2, options_.min_backoff, options_.max_backoff);
  next_attempt_ = now + backoff_;
}

void GroupHealth::OnInfoFailed(const absl::Status& why, absl::Time now) {
  state_ = State::kConnecting;
  reason_ = Message(why);
  BackOff(now);
}

void GroupHealth::OnInfoRefused(const absl::Status& why, absl::Time now) {
  state_ = State::kRefused;
  reason_ = Message(why);
  BackOff(now);
}

void GroupHealth::OnSessionOpening(absl::Time now) {
  state_ = State::kOpening;
  reason_ = "waiting for its first message";
  last_message_ = now;
}

void GroupHealth::OnMessage(const v1::WorkerLoad* load, absl::Time now) {
  if (state_ != State::kOpening && state_ != State::kReady) return;
  last_message_ = now;
  if (load != nullptr) {
    if (load->steps() != steps_ || load->heartbeat() != heartbeat_) {
      steps_ = load->steps();
      heartbeat_ = load->heartbeat();
      last_progress_ = now;
      stuck_ = false;
    }
    const bool had_work = has_work_;
    has_work_ = load->running_requests() > 0 || load->queued_requests() > 0;
    if (!has_work_) stuck_ = false;
    if (has_work_ && !had_work) last_progress_ = now;  // It has only now something to advance on.
  }
  if (state_ != State::kOpening || load == nullptr) return;
  if (stuck_) {
    reason_ = "its work does not advance";
    return;
  }
  state_ = State::kReady;
  reason_.clear();
  backoff_ = absl::ZeroDuration();
  last_progress_ = now;
}

void GroupHealth::OnSessionEnded(const absl::Status& why, absl::Time now) {
  if (state_ != State::kStalled) reason_ = fmt::format("its session ended: {}", Message(why));
  state_ = State::kConnecting;
  BackOff(now);
}

void GroupHealth::Tick(absl::Time now) {
  if (const absl::Duration pause = now - last_tick_ - options_.max_tick;
      pause > absl::ZeroDuration()) {
    last_message_ += pause;
    last_progress_ += pause;
  }
  last_tick_ = now;
  if (state_ != State::kOpening && state_ != State::kReady) return;
  if (now - last_message_ > options_.silence_timeout) {
    state_ = State::kStalled;
    reason_ = fmt::format("silent for {:.1f} s", absl::ToDoubleSeconds(now - last_message_));
  } else if (state_ == State::kReady && has_work_ &&
             now - last_progress_ > options_.stall_timeout) {
    state_ = State::kStalled;
    stuck_ = true;
    reason_ = fmt::format("no progress on its work for {:.1f} s",
                          absl::ToDoubleSeconds(now - last_progress_));
  }
}

bool GroupHealth::ShouldConnect(absl::Time now) const {
  return (state_ == State::kConnecting || state_ == State::kRefused) && now >= next_attempt_;
}

std::string_view StateName(GroupHealth::State state) {
  switch (state) {
    case GroupHealth::State::kConnecting:
      return "connecting";
    case GroupHealth::State::kOpening:
      return "opening";
    case GroupHealth::State::kReady:
      return "ready";
    case GroupHealth::State::kStalled:
      return "stalled";
    case GroupHealth::State::kRefused:
      return "refused";
  }
  return "unknown";
}

}  // namespace hanlin
