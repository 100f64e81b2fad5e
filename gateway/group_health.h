// When a worker group may be given requests. Pure: facts and the time go in, the state comes out.
//
//   connecting ──info ok──▶ opening ──first load──▶ ready ──silence or no progress──▶ stalled
//       ▲ ▲                    │                      │                                  │
//       │ └────────────────────┴──── session ended ───┴──────────────────────────────────┘
//       └── (info refused: refused, asked again later)
//
// Health is progress: a group that has work must advance its heartbeat or steps within
// stall_timeout, and every group must say something within silence_timeout. A group that stalled on
// its work is ready again only when its counters have moved or the work is gone. Time in which
// nobody ticked (this process or its machine was paused) is not held against a group.
//
// Not thread-safe.
#ifndef HANLIN_GATEWAY_GROUP_HEALTH_H_
#define HANLIN_GATEWAY_GROUP_HEALTH_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "hanlin/v1/worker.pb.h"

namespace hanlin {

class GroupHealth {
 public:
  enum class State { kConnecting, kOpening, kReady, kStalled, kRefused };
  struct Options {
    absl::Duration silence_timeout = absl::Milliseconds(1500);
    absl::Duration stall_timeout = absl::Seconds(10);
    absl::Duration min_backoff = absl::Milliseconds(50);
    absl::Duration max_backoff = absl::Seconds(1);
    absl::Duration max_tick = absl::Milliseconds(250);  // more between two ticks is a pause
  };
  explicit GroupHealth(const Options& options) : options_(options) {}

  // Facts, in the order they happen.
  void OnInfoFailed(const absl::Status& why, absl::Time now);   // Or not usable yet: back-off.
  void OnInfoRefused(const absl::Status& why, absl::Time now);  // Another model or tokenizer.
  void OnSessionOpening(absl::Time now);
  void OnMessage(const v1::WorkerLoad* load, absl::Time now);  // load: null when it has none.
  void OnSessionEnded(const absl::Status& why, absl::Time now);
  // The passing of time. Becomes stalled when the group is silent or stuck.
  void Tick(absl::Time now);

  // True when it is time to ask the group for its info (again).
  bool ShouldConnect(absl::Time now) const;
  State state() const { return state_; }
  bool ready() const { return state_ == State::kReady; }
  // Why it is not ready, for people.
  const std::string& reason() const { return reason_; }

 private:
  void BackOff(absl::Time now);

  const Options options_;
  State state_ = State::kConnecting;
  std::string reason_ = "not asked yet";
  absl::Time next_attempt_ = absl::InfinitePast();
  absl::Duration backoff_ = absl::ZeroDuration();
  absl::Time last_message_ = absl::InfinitePast();
  absl::Time last_tick_ = absl::InfiniteFuture();
  // Counters at their last advance, and the work seen with them.
  uint64_t steps_ = 0;
  uint64_t heartbeat_ = 0;
  bool has_work_ = false;
  absl::Time last_progress_ = absl::InfinitePast();
  // Set while the counters stand where they stood when the group got stuck.
  bool stuck_ = false;
};

std::string_view StateName(GroupHealth::State state);

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_GROUP_HEALTH_H_
