// The two caps of the queue.
#include "worker/engine/admission.h"

#include "absl/time/clock.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(Admission, RefusesBeyondTheCapOfRequestsWithAHint) {
  Admission admission({.max_requests = 2, .max_tokens = 1000});
  absl::Duration retry_after;
  EXPECT_OK(admission.Enter(1, &retry_after));
  EXPECT_OK(admission.Enter(1, &retry_after));
  EXPECT_THAT(admission.Enter(1, &retry_after),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 requests")));
  EXPECT_GE(retry_after, absl::Milliseconds(100));
  EXPECT_LE(retry_after, absl::Seconds(30));
  admission.Leave(1, absl::Now());
  EXPECT_OK(admission.Enter(1, &retry_after));
}

TEST(Admission, RefusesBeyondTheCapOfTokens) {
  Admission admission({.max_requests = 10, .max_tokens = 100});
  absl::Duration retry_after;
  EXPECT_OK(admission.Enter(60, &retry_after));
  EXPECT_THAT(admission.Enter(41, &retry_after),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("adds 41")));
  EXPECT_OK(admission.Enter(40, &retry_after));
}

TEST(Admission, AnEmptyQueueTakesAnyRequest) {
  Admission admission({.max_requests = 10, .max_tokens = 100});
  absl::Duration retry_after;
  EXPECT_OK(admission.Enter(500, &retry_after));
}

TEST(Admission, TheHintGrowsWhenTheQueueDrainsSlowly) {
  Admission slow({.max_requests = 4, .max_tokens = 1000});
  Admission fast({.max_requests = 4, .max_tokens = 1000});
  absl::Duration slow_hint, fast_hint;
  for (auto* admission : {&slow, &fast}) {
    const absl::Duration interval = admission == &slow ? absl::Seconds(4) : absl::Milliseconds(1);
    absl::Duration* hint = admission == &slow ? &slow_hint : &fast_hint;
    absl::Time now = absl::Now();
    for (int i = 0; i < 4; ++i) EXPECT_OK(admission->Enter(1, hint));
    for (int i = 0; i < 50; ++i) {
      admission->Leave(1, now += interval);
      EXPECT_OK(admission->Enter(1, hint));
    }
    EXPECT_FALSE(admission->Enter(1, hint).ok());
  }
  EXPECT_GT(slow_hint, absl::Seconds(5));
  EXPECT_EQ(fast_hint, absl::Milliseconds(100));
}

}  // namespace
}  // namespace hanlin
