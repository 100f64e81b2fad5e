// The collectives over groups of 1 to 4 ranks as threads, and their failures over real processes
// that are killed, stopped or leave.
#include "model/comm/shared_memory.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "absl/time/clock.h"
#include "common/testing/testing.h"
#include "model/comm/segment.h"
#include "model/comm/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::JoinTestGroup;
using testing::RunRanks;
using testing::StatusIs;
using testing::TempDir;

std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random) * std::exp(3 * normal(random));
  return values;
}

class CollectiveTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(GroupSize, CollectiveTest, ::testing::Values(1, 2, 3, 4));

TEST_P(CollectiveTest, SumsRunInRankOrderOnEveryRankForEverySize) {
  const int size = GetParam();
  for (const size_t count : {1u, 7u, 8192u, 8193u, 65536u, 65537u, 200001u}) {
    std::vector<float> want = RandomFloats(count, 0);
    for (int rank = 1; rank < size; ++rank) {
      const std::vector<float> part = RandomFloats(count, rank);
      for (size_t i = 0; i < count; ++i) want[i] += part[i];
    }
    RunRanks(size, [&](Communicator& communicator) {
      std::vector<float> data = RandomFloats(count, communicator.rank());
      ASSERT_OK(communicator.AllReduceSum(data));
      EXPECT_EQ(std::memcmp(data.data(), want.data(), count * sizeof(float)), 0) << count;
    });
  }
}

// The whole array on the last rank, a part without elements, parts that begin anywhere.
std::vector<std::vector<int64_t>> SomeCuts(int size, int64_t count) {
  std::vector<int64_t> last(size + 1, 0), equal, uneven(size + 1, count);
  last.back() = count;
  for (int rank = 0; rank <= size; ++rank) equal.push_back(count * rank / size);
  uneven[0] = 0;
  for (int rank = 1; rank < size; ++rank)
    uneven[rank] = std::min<int64_t>(count, 65530 + 13 * rank);
  return {last, equal, uneven};
}

TEST_P(CollectiveTest, PartsHaveTheBitsOfTheWholeSumAndReachEveryone) {
  const int size = GetParam();
  for (const int64_t count : {1, 7, 65536, 65537, 200001}) {
    for (const std::vector<int64_t>& cuts : SomeCuts(size, count)) {
      RunRanks(size, [&](Communicator& communicator) {
        const int rank = communicator.rank();
        std::vector<float> want = RandomFloats(count, rank), data = want;
        ASSERT_OK(communicator.AllReduceSum(want));
        ASSERT_OK(communicator.ReduceScatterSum(data, cuts));
        EXPECT_EQ(std::memcmp(data.data() + cuts[rank], want.data() + cuts[rank],
                              (cuts[rank + 1] - cuts[rank]) * sizeof(float)),
                  0);
        std::fill(data.begin(), data.begin() + cuts[rank], NAN);
        std::fill(data.begin() + cuts[rank + 1], data.end(), NAN);
        ASSERT_OK(communicator.AllGather(data, cuts));
        EXPECT_EQ(std::memcmp(data.data(), want.data(), count * sizeof(float)), 0) << count;
      });
    }
  }
}

TEST_P(CollectiveTest, GatherPlacesEveryShardsColumns) {
  const int size = GetParam();
  for (const auto& [rows, columns] : {std::pair{1, 5}, {3, 40}, {2, 70000}, {700, 100}}) {
    RunRanks(size, [&, rows = rows, columns = columns](Communicator& communicator) {
      std::vector<float> shard(static_cast<size_t>(rows) * columns);
      std::iota(shard.begin(), shard.end(), communicator.rank() * 1e6f);
      std::vector<float> out(communicator.rank() == 0 ? shard.size() * size : 0, -1);
      ASSERT_OK(communicator.GatherColumns(shard.data(), rows, columns, out.data()));
      for (size_t i = 0; i < out.size(); ++i) {
        const size_t row = i / (static_cast<size_t>(columns) * size);
        const size_t rank = i / columns % size;
        ASSERT_EQ(out[i], rank * 1e6f + (row * columns + i % columns)) << i;
      }
    });
  }
}

TEST_P(CollectiveTest, BroadcastCarriesMessagesOfEverySize) {
  for (const size_t bytes : {0u, 1u, 262136u, 262137u, 1000000u}) {
    std::vector<std::byte> want(bytes);
    for (size_t i = 0; i < bytes; ++i) want[i] = static_cast<std::byte>(i * 7);
    RunRanks(GetParam(), [&](Communicator& communicator) {
      std::vector<std::byte> message;
      if (communicator.rank() == 0) message = want;
      ASSERT_OK(communicator.Broadcast(&message, absl::Seconds(10)));
      EXPECT_TRUE(message == want) << bytes;
    });
  }
}

// Oversubscribed on purpose: four ranks on the two cores of a small machine.
TEST_P(CollectiveTest, ManySmallOperationsInARowStayCorrectAndFast) {
  const absl::Time begin = absl::Now();
  RunRanks(GetParam(), [&](Communicator& communicator) {
    for (int i = 0; i < 2000; ++i) {
      float data[3] = {static_cast<float>(i), 1, static_cast<float>(communicator.rank())};
      ASSERT_OK(communicator.AllReduceSum(data));
      const int size = communicator.size();
      ASSERT_EQ(data[0], i * size);
      ASSERT_EQ(data[2], size * (size - 1) / 2);
      if (i % 100 == 0) ASSERT_OK(communicator.Barrier());
    }
  });
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
}

TEST(SharedMemoryTest, AbortEndsEveryRankWithTheFirstReason) {
  RunRanks(3, [](Communicator& communicator) {
    if (communicator.rank() == 1) {
      communicator.Abort("out of luck");
      communicator.Abort("second reason");
    }
    std::vector<float> data(10);
    EXPECT_THAT(communicator.AllReduceSum(data),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1 of 3: out of luck")));
    EXPECT_THAT(communicator.Barrier(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("luck")));
    const std::vector<int64_t> cuts = {0, 3, 6, 10};
    EXPECT_FALSE(communicator.ReduceScatterSum(data, cuts).ok());
    EXPECT_FALSE(communicator.AllGather(data, cuts).ok());
    EXPECT_FALSE(communicator.Check().ok());
  });
}

TEST(SegmentTest, NameIsGoneOnceUnlinkedAndTheMemoryStays) {
  ASSERT_OK_AND_ASSIGN(auto made, Segment::Make(2));
  ASSERT_OK_AND_ASSIGN(auto opened, Segment::Open(made->name(), 2));
  EXPECT_THAT(Segment::Open(made->name(), 3),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("for 3 ranks")));
  made->Unlink();
  EXPECT_THAT(Segment::Open(made->name(), 2),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("share a host")));
  made->slot(1, 1)[7] = 42;
  EXPECT_EQ(opened->slot(1, 1)[7], 42);
  EXPECT_THAT(Segment::Make(1000), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1000")));
}

// Rank 0 in this process, the others as children that answer all-reduces until something happens to
// them.
class PeerFailureTest : public ::testing::Test {
 protected:
  static constexpr int kSize = 3;

  void Start(absl::Duration timeout) {
    for (int rank = 1; rank < kSize; ++rank) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) RunChild(rank, timeout);
      children_.push_back(child);
    }
    auto communicator = JoinTestGroup(directory_.path(), 0, kSize, timeout);
    ASSERT_OK(communicator);
    communicator_ = *std::move(communicator);
    for (int i = 0; i < 10; ++i) ASSERT_OK(Sum());
  }

  [[noreturn]] void RunChild(int rank, absl::Duration timeout) {
    auto communicator = JoinTestGroup(directory_.path(), rank, kSize, timeout);
    absl::Status status = communicator.status();
    while (status.ok()) {
      float value = 1;
      status = (*communicator)->AllReduceSum({&value, 1});
    }
    _exit(absl::IsUnavailable(status) ? 7 : 8);
  }

  absl::Status Sum() {
    float value = 1;
    return communicator_->AllReduceSum({&value, 1});
  }

  // The exit status of a child, which must end within seconds.
  int Wait(int index) {
    int status = 0;
    for (int i = 0; i < 500; ++i) {
      if (waitpid(children_[index], &status, WNOHANG) == children_[index]) {
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    return -1000;
  }

  TempDir directory_;
  std::vector<pid_t> children_;
  std::unique_ptr<Communicator> communicator_;
};

TEST_F(PeerFailureTest, KilledRankIsNamedEverywhereWithinASecond) {
  Start(absl::Seconds(30));
  kill(children_[1], SIGKILL);
  const absl::Time begin = absl::Now();
  absl::Status status;
  while (status.ok()) status = Sum();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 2 of 3 is gone")));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));
  EXPECT_EQ(Wait(0), 7);
  EXPECT_EQ(Wait(1), -SIGKILL);
}

TEST_F(PeerFailureTest, DeathIsSeenByAnIdleLeader) {
  Start(absl::Seconds(30));
  EXPECT_OK(communicator_->Check());
  kill(children_[0], SIGKILL);
  EXPECT_EQ(Wait(0), -SIGKILL);
  EXPECT_THAT(communicator_->Check(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1")));
  EXPECT_EQ(Wait(1), 7);
}

TEST_F(PeerFailureTest, StoppedRankIsNamedAtTheTimeout) {
  Start(absl::Milliseconds(700));
  kill(children_[0], SIGSTOP);
  absl::Status status;
  while (status.ok()) status = Sum();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("rank 1 of 3 did not answer within 0.7 s")));
  EXPECT_EQ(Wait(1), 7);
  kill(children_[0], SIGCONT);
  EXPECT_EQ(Wait(0), 7);  // it wakes up in a group that is over
}

TEST_F(PeerFailureTest, FollowersEndWhenTheLeaderLeaves) {
  Start(absl::Seconds(30));
  communicator_.reset();
  EXPECT_EQ(Wait(0), 7);
  EXPECT_EQ(Wait(1), 7);
}

}  // namespace
}  // namespace hanlin
