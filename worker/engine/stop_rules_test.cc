// When a sequence ends.
#include "worker/engine/stop_rules.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<int32_t> kEnd = {1, 2};

TEST(CheckStop, EndTokenEnds) {
  const StopDecision stop = CheckStop({.max_new_tokens = 10}, kEnd, 2, 1);
  EXPECT_EQ(stop.reason, FinishReason::kEndToken);
  EXPECT_EQ(stop.stop_id, 2);
}

TEST(CheckStop, IgnoredEndTokenDoesNotEnd) {
  EXPECT_EQ(CheckStop({.ignore_eos = true, .max_new_tokens = 10}, kEnd, 2, 1).reason,
            FinishReason::kNone);
}

TEST(CheckStop, StopIdGoesBeforeEndTokenAndLength) {
  const StopDecision stop = CheckStop({.stop_ids = {2}, .max_new_tokens = 1}, kEnd, 2, 1);
  EXPECT_EQ(stop.reason, FinishReason::kStop);
  EXPECT_EQ(stop.stop_id, 2);
}

TEST(CheckStop, StopIdEndsWhenEndTokensAreIgnored) {
  EXPECT_EQ(
      CheckStop({.stop_ids = {1}, .ignore_eos = true, .max_new_tokens = 9}, kEnd, 1, 1).reason,
      FinishReason::kStop);
}

TEST(CheckStop, LengthEndsAtMaxNewTokens) {
  EXPECT_EQ(CheckStop({.max_new_tokens = 3}, kEnd, 9, 2).reason, FinishReason::kNone);
  const StopDecision stop = CheckStop({.max_new_tokens = 3}, kEnd, 9, 3);
  EXPECT_EQ(stop.reason, FinishReason::kLength);
  EXPECT_EQ(stop.stop_id, std::nullopt);
}

TEST(CheckStop, TokenNumberMinNewTokensMayEnd) {
  const ResolvedRequest request{.max_new_tokens = 10, .min_new_tokens = 3};
  EXPECT_EQ(CheckStop(request, kEnd, 1, 2).reason, FinishReason::kNone);
  EXPECT_EQ(CheckStop(request, kEnd, 1, 3).reason, FinishReason::kEndToken);
}

TEST(BannedIds, AreStopIdsAndEndTokensThatCount) {
  EXPECT_THAT(BannedIds({.stop_ids = {7}, .min_new_tokens = 2}, kEnd), ElementsAre(7, 1, 2));
  EXPECT_THAT(BannedIds({.stop_ids = {7}, .ignore_eos = true, .min_new_tokens = 2}, kEnd),
              ElementsAre(7));
  EXPECT_THAT(BannedIds({.stop_ids = {7}}, kEnd), IsEmpty());
}

}  // namespace
}  // namespace hanlin
