// The state machine of a worker group, second by second.
#include "gateway/group_health.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using State = GroupHealth::State;
using ::testing::HasSubstr;

class GroupHealthTest : public ::testing::Test {
 protected:
  static absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(1000 + seconds); }
  void Load(double seconds, uint64_t heartbeat, int running) {
    v1::WorkerLoad load;
    load.set_heartbeat(heartbeat);
    load.set_running_requests(running);
    health_.OnMessage(&load, At(seconds));
  }
  // Four times a second, as a gateway does at least.
  void TickUntil(double seconds) {
    for (; ticked_ < seconds; ticked_ += 0.25) health_.Tick(At(ticked_));
    health_.Tick(At(seconds));
  }
  void MakeReady(double seconds) {
    health_.OnSessionOpening(At(seconds));
    Load(seconds, 1, 0);
    ASSERT_EQ(health_.state(), State::kReady);
  }

  GroupHealth health_{GroupHealth::Options{}};
  double ticked_ = 0;
};

TEST_F(GroupHealthTest, ReadyComesWithTheFirstLoadAndNotBefore) {
  EXPECT_TRUE(health_.ShouldConnect(At(0)));
  health_.OnSessionOpening(At(0));
  EXPECT_FALSE(health_.ShouldConnect(At(0)));
  health_.OnMessage(nullptr, At(0.1));
  EXPECT_EQ(health_.state(), State::kOpening);
  Load(0.2, 1, 0);
  EXPECT_TRUE(health_.ready());
}

TEST_F(GroupHealthTest, SilenceStallsAnIdleGroup) {
  MakeReady(0);
  TickUntil(1.4);
  EXPECT_TRUE(health_.ready());
  TickUntil(1.6);
  EXPECT_EQ(health_.state(), State::kStalled);
  EXPECT_THAT(health_.reason(), HasSubstr("silent"));
}

TEST_F(GroupHealthTest, APauseOfTheGatewayItselfIsNotSilence) {
  MakeReady(0);
  TickUntil(1);
  health_.Tick(At(60));
  EXPECT_TRUE(health_.ready());
  ticked_ = 60;
  TickUntil(61);
  EXPECT_EQ(health_.state(), State::kStalled);
}

TEST_F(GroupHealthTest, AnIdleGroupNeedsNoProgress) {
  MakeReady(0);
  for (int second = 1; second < 60; ++second) {
    Load(second, 1, 0);
    TickUntil(second + 0.5);
  }
  EXPECT_TRUE(health_.ready());
}

TEST_F(GroupHealthTest, ALongPrefillIsProgressWhileTheHeartbeatAdvances) {
  MakeReady(0);
  for (int second = 1; second < 60; ++second) {
    Load(second, second, 1);
    TickUntil(second + 0.5);
  }
  EXPECT_TRUE(health_.ready());
}

TEST_F(GroupHealthTest, WorkThatStandsStillStallsAndComesBackOnlyWhenItMoves) {
  MakeReady(0);
  for (int second = 1; second <= 12; ++second) {
    Load(second, 1, 1);
    TickUntil(second + 0.5);
  }
  EXPECT_EQ(health_.state(), State::kStalled);
  EXPECT_THAT(health_.reason(), HasSubstr("no progress"));
  health_.OnSessionEnded(absl::CancelledError(""), At(13));
  EXPECT_TRUE(health_.ShouldConnect(At(14)));
  health_.OnSessionOpening(At(14));
  Load(14, 1, 1);
  EXPECT_EQ(health_.state(), State::kOpening);
  Load(15, 2, 1);
  EXPECT_TRUE(health_.ready());
}

TEST_F(GroupHealthTest, WorkThatArrivesLateHasItsFullTime) {
  MakeReady(0);
  for (int second = 1; second <= 30; ++second) Load(second, 1, 0);
  Load(31, 1, 1);
  TickUntil(32);
  EXPECT_TRUE(health_.ready());
}

TEST_F(GroupHealthTest, FailedAttemptsBackOffUpToASecond) {
  health_.OnInfoFailed(absl::UnavailableError("refused"), At(0));
  EXPECT_FALSE(health_.ShouldConnect(At(0.04)));
  EXPECT_TRUE(health_.ShouldConnect(At(0.06)));
  for (int i = 0; i < 10; ++i) health_.OnInfoFailed(absl::UnavailableError("refused"), At(1));
  EXPECT_FALSE(health_.ShouldConnect(At(1.9)));
  EXPECT_TRUE(health_.ShouldConnect(At(2.1)));
}

TEST_F(GroupHealthTest, ARefusedGroupSaysWhyAndIsAskedAgain) {
  health_.OnInfoRefused(absl::FailedPreconditionError("another tokenizer"), At(0));
  EXPECT_EQ(health_.state(), State::kRefused);
  EXPECT_EQ(health_.reason(), "another tokenizer");
  EXPECT_TRUE(health_.ShouldConnect(At(1.1)));
}

}  // namespace
}  // namespace hanlin
