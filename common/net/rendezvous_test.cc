// Ranks as threads that meet on loopback: who is let in, who is told why not, and what a death
// looks like.
#include "common/net/rendezvous.h"

#include <poll.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "absl/time/clock.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

using RendezvousOr = absl::StatusOr<std::unique_ptr<Rendezvous>>;

RendezvousOptions Options(int rank, int size, absl::Duration timeout = absl::Seconds(10)) {
  return {.rank = rank, .size = size, .identity = "poet float32", .timeout = timeout};
}

std::future<RendezvousOr> LeadAsync(const FileDescriptor& listener,
                                    const RendezvousOptions& options) {
  return std::async(std::launch::async,
                    [&listener, options] { return Rendezvous::Lead(listener, options); });
}

class RendezvousTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string param = GetParam();
    auto listener = ListenOn(param == "unix" ? "unix:" + dir_.path() + "/s" : param);
    if (!listener.ok() && param[0] == '[') GTEST_SKIP() << "no IPv6 here: " << listener.status();
    ASSERT_OK(listener);
    listener_ = *std::move(listener);
    ASSERT_OK_AND_ASSIGN(address_, LocalAddress(listener_));
  }

  TempDir dir_;
  FileDescriptor listener_;
  std::string address_;
};

INSTANTIATE_TEST_SUITE_P(Families, RendezvousTest,
                         ::testing::Values("127.0.0.1:0", "[::1]:0", "unix"));

TEST_P(RendezvousTest, RanksMeetAndShareText) {
  auto leader = LeadAsync(listener_, Options(0, 4));
  std::vector<std::thread> threads;
  for (int rank = 1; rank < 4; ++rank) {
    threads.emplace_back([this, rank] {
      ASSERT_OK_AND_ASSIGN(auto joined, Rendezvous::Join(address_, Options(rank, 4)));
      std::string text;
      ASSERT_OK(joined->Broadcast(&text));
      EXPECT_EQ(text, "name of a segment");
      ASSERT_OK(joined->Barrier());
    });
  }
  ASSERT_OK_AND_ASSIGN(auto lead, leader.get());
  std::string text = "name of a segment";
  EXPECT_OK(lead->Broadcast(&text));
  EXPECT_OK(lead->Barrier());
  EXPECT_EQ(lead->peers().size(), 3u);
  for (std::thread& thread : threads) thread.join();
}

TEST_P(RendezvousTest, WrongOnesAreToldWhyAndTheRightOneStillJoins) {
  auto leader = LeadAsync(listener_, Options(0, 3));
  ASSERT_OK_AND_ASSIGN(auto first, Rendezvous::Join(address_, Options(1, 3)));
  EXPECT_THAT(Rendezvous::Join(address_, Options(1, 2)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("rank 1 was started for 2 ranks, its leader for 3")));
  EXPECT_THAT(Rendezvous::Join(address_, Options(1, 3)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("rank 1 of 3 is taken")));
  RendezvousOptions other = Options(2, 3);
  other.identity = "poet bfloat16";
  EXPECT_THAT(Rendezvous::Join(address_, other),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("poet bfloat16"), HasSubstr("poet float32"))));
  EXPECT_OK(Rendezvous::Join(address_, Options(2, 3)));
  EXPECT_OK(leader.get());
}

TEST_P(RendezvousTest, StrangersDelayNobody) {
  auto leader = LeadAsync(listener_, Options(0, 2));
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  ASSERT_OK_AND_ASSIGN(auto silent, ConnectTo(address_, deadline));
  ASSERT_OK_AND_ASSIGN(auto liar, ConnectTo(address_, deadline));
  ASSERT_OK(SendAll(liar, "\xff\xff\xff\xff and more", deadline));
  ASSERT_OK_AND_ASSIGN(auto browser, ConnectTo(address_, deadline));
  ASSERT_OK(SendFrame(browser, "GET / HTTP/1.1", deadline));
  EXPECT_OK(ReceiveFrame(browser, deadline));
  EXPECT_OK(Rendezvous::Join(address_, Options(1, 2)));
  EXPECT_OK(leader.get());
  EXPECT_LT(absl::Now(), deadline - absl::Seconds(8));
}

TEST_P(RendezvousTest, MissingRanksAreNamedAtTheDeadline) {
  std::vector<std::string> heard;
  RendezvousOptions options = Options(0, 4, absl::Milliseconds(1300));
  options.progress = [&heard](std::string_view text) { heard.emplace_back(text); };
  auto leader = LeadAsync(listener_, options);
  ASSERT_OK_AND_ASSIGN(auto joined, Rendezvous::Join(address_, Options(1, 4)));
  EXPECT_THAT(leader.get(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                     HasSubstr("ranks 2,3 of 4 did not join")));
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard[0], "waiting for ranks 2,3 of 4");
}

TEST_P(RendezvousTest, RankThatDiesWhileWaitingMayBeReplaced) {
  auto leader = LeadAsync(listener_, Options(0, 3));
  EXPECT_OK(Rendezvous::Join(address_, Options(1, 3)));  // dropped at once
  RendezvousOr second = absl::UnknownError("not tried");
  for (int i = 0; i < 100 && !second.ok(); ++i) {
    second = Rendezvous::Join(address_, Options(1, 3));  // until the leader has seen the death
    if (!second.ok()) absl::SleepFor(absl::Milliseconds(10));
  }
  ASSERT_OK(second);
  ASSERT_OK_AND_ASSIGN(auto third, Rendezvous::Join(address_, Options(2, 3)));
  EXPECT_OK(leader.get());
}

TEST_P(RendezvousTest, DeathIsSeenAsAReadableConnection) {
  auto leader = LeadAsync(listener_, Options(0, 2));
  auto joined = Rendezvous::Join(address_, Options(1, 2));
  ASSERT_OK(joined);
  ASSERT_OK_AND_ASSIGN(auto lead, leader.get());
  pollfd entry = {lead->peers()[0].socket.get(), POLLIN, 0};
  EXPECT_EQ(poll(&entry, 1, 0), 0);
  joined->reset();
  EXPECT_EQ(poll(&entry, 1, 1000), 1);
  EXPECT_THAT(lead->Barrier(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1")));
}

TEST(RendezvousJoinTest, WhatAnswersButDoesNotLeadIsNamed) {
  ASSERT_OK_AND_ASSIGN(const FileDescriptor listener, ListenOn("127.0.0.1:0"));
  ASSERT_OK_AND_ASSIGN(const std::string address, LocalAddress(listener));
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  const auto join = [&address] {
    return std::async(std::launch::async,
                      [&address] { return Rendezvous::Join(address, Options(1, 2)).status(); });
  };
  const auto accepted = [&listener] {
    pollfd waiting = {listener.get(), POLLIN, 0};
    EXPECT_EQ(poll(&waiting, 1, 10000), 1);
    return FileDescriptor(accept(listener.get(), nullptr, nullptr));
  };
  auto first = join();
  {
    const FileDescriptor peer = accepted();
    ASSERT_OK(SendFrame(peer, "ok", deadline));  // shorter than a verdict
    EXPECT_THAT(first.get(), StatusIs(absl::StatusCode::kUnavailable,
                                      HasSubstr(address + " is no Hanlin leader")));
  }
  auto second = join();
  accepted();  // and closed at once
  EXPECT_THAT(second.get(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("leader at " + address)));
}

TEST(RendezvousOptionsTest, RanksThatCannotBeAreRefused) {
  const FileDescriptor none;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Rendezvous::Lead(none, Options(1, 2)),
              StatusIs(kInvalid, HasSubstr("rank 1 cannot lead")));
  EXPECT_THAT(Rendezvous::Join("127.0.0.1:1", Options(0, 2)),
              StatusIs(kInvalid, HasSubstr("rank 0 leads")));
  for (const auto& [rank, size] : {std::pair{2, 2}, {-1, 2}, {0, 0}}) {
    EXPECT_THAT(Rendezvous::Lead(none, Options(rank, size)),
                StatusIs(kInvalid, HasSubstr(fmt::format("rank {} of {}", rank, size))));
  }
  RendezvousOptions talkative = Options(0, 2);
  talkative.identity = std::string(40000, 'x');
  EXPECT_THAT(Rendezvous::Lead(none, talkative), StatusIs(kInvalid, HasSubstr("40000 bytes")));
}

}  // namespace
}  // namespace hanlin
