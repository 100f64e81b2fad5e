// Both caps, what tickets give back, and the retry hint.
#include "gateway/admission.h"

#include <vector>

#include "common/rpc/status.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

TEST(AdmissionTest, RequestsBeyondTheCapAreRefusedWithAHintAndTakenAgainLater) {
  Admission admission({.max_requests = 2});
  ASSERT_OK_AND_ASSIGN(auto first, admission.AdmitRequests(1));
  ASSERT_OK_AND_ASSIGN(auto second, admission.AdmitRequests(1));
  const auto refused = admission.AdmitRequests(1);
  EXPECT_THAT(refused, StatusIs(Code::kResourceExhausted, HasSubstr("want at most 2")));
  ASSERT_TRUE(RetryAfter(refused.status()).has_value());
  EXPECT_GT(*RetryAfter(refused.status()), absl::ZeroDuration());
  first.Release();
  EXPECT_OK(admission.AdmitRequests(1));
}

TEST(AdmissionTest, ACallThatNeverFitsGetsNoHint) {
  Admission admission({.max_requests = 2});
  const auto refused = admission.AdmitRequests(3);
  EXPECT_THAT(refused, StatusIs(Code::kResourceExhausted, HasSubstr("brings 3")));
  EXPECT_FALSE(RetryAfter(refused.status()).has_value());
}

TEST(AdmissionTest, PromptTokensAreCappedButALonePromptPasses) {
  Admission admission({.max_prompt_tokens = 100});
  ASSERT_OK_AND_ASSIGN(auto big, admission.AdmitPromptTokens(1000));
  EXPECT_THAT(admission.AdmitPromptTokens(1), StatusIs(Code::kResourceExhausted, HasSubstr("100")));
  big.Release();
  EXPECT_EQ(admission.prompt_tokens(), 0);
  EXPECT_OK(admission.AdmitPromptTokens(60));
}

absl::Time fake_now = absl::UnixEpoch();

TEST(AdmissionTest, AQuietSpellDoesNotLengthenTheHint) {
  Admission admission({.max_requests = 2, .clock = [] { return fake_now; }});
  // Two requests at a time, one ends every 200 ms; then nothing for an hour; then busy again.
  for (int spell = 0; spell < 2; ++spell) {
    std::vector<Admission::Ticket> running;
    for (int i = 0; i < 50; ++i) {
      while (running.size() < 2) {
        ASSERT_OK_AND_ASSIGN(auto ticket, admission.AdmitRequests(1));
        running.push_back(std::move(ticket));
      }
      const auto refused = admission.AdmitRequests(1);
      ASSERT_TRUE(RetryAfter(refused.status()).has_value());
      if (i > 0) {
        EXPECT_EQ(*RetryAfter(refused.status()), absl::Milliseconds(200)) << spell << " " << i;
      }
      fake_now += absl::Milliseconds(200);
      running.erase(running.begin());
    }
    for (; !running.empty(); running.pop_back()) fake_now += absl::Milliseconds(200);
    fake_now += absl::Hours(1);
  }
}

TEST(AdmissionTest, TheHintStaysWithinItsBounds) {
  for (const absl::Duration each : {absl::Microseconds(1), absl::Hours(1)}) {
    Admission admission({.max_requests = 1, .clock = [] { return fake_now; }});
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK_AND_ASSIGN(auto ticket, admission.AdmitRequests(1));
      fake_now += each;
    }
    ASSERT_OK_AND_ASSIGN(auto ticket, admission.AdmitRequests(1));
    const absl::Duration hint = RetryAfter(admission.AdmitRequests(1).status()).value();
    EXPECT_GE(hint, absl::Milliseconds(50));
    EXPECT_LE(hint, absl::Seconds(30));
  }
}

TEST(AdmissionTest, AMovedTicketGivesBackOnce) {
  Admission admission({});
  {
    ASSERT_OK_AND_ASSIGN(auto ticket, admission.AdmitRequests(3));
    Admission::Ticket moved = std::move(ticket);
    EXPECT_EQ(admission.requests(), 3);
    ASSERT_OK_AND_ASSIGN(auto other, admission.AdmitRequests(2));
    moved = std::move(other);
    EXPECT_EQ(admission.requests(), 2);
  }
  EXPECT_EQ(admission.requests(), 0);
}

}  // namespace
}  // namespace hanlin
