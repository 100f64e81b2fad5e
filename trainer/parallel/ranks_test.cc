// The environment of launchers, and groups formed over a real port.
#include "trainer/parallel/ranks.h"

#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "common/net/socket.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

absl::StatusOr<RankEnvironment> Read(const std::map<std::string, std::string>& variables) {
  return ReadRankEnvironment([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

TEST(RankEnvironmentTest, WithoutALauncherThereIsOneRank) {
  ASSERT_OK_AND_ASSIGN(const RankEnvironment alone, Read({{"MASTER_PORT", "x"}}));
  EXPECT_EQ(alone.world_size, 1);
}

TEST(RankEnvironmentTest, TorchrunsVariables) {
  std::map<std::string, std::string> variables = {
      {"RANK", "3"},          {"WORLD_SIZE", "4"},      {"LOCAL_WORLD_SIZE", "2"},
      {"MASTER_ADDR", "::1"}, {"MASTER_PORT", "29500"}, {"LOCAL_RANK", "1"}};
  ASSERT_OK_AND_ASSIGN(RankEnvironment ranks, Read(variables));
  EXPECT_EQ(ranks.rank, 3);
  EXPECT_EQ(ranks.local_world_size, 2);
  EXPECT_EQ(ranks.local_rank, 1);
  EXPECT_EQ(ranks.master, "[::1]:29500");
  variables["LOCAL_RANK"] = "2";
  EXPECT_THAT(Read(variables), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("LOCAL_RANK is '2', want an integer in [0, 1]")));
  variables.erase("LOCAL_RANK");
  variables["MASTER_ADDR"] = "node0";
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  ASSERT_OK_AND_ASSIGN(ranks, Read(variables));
  EXPECT_EQ(ranks.master, "node0:29501");
  EXPECT_EQ(ranks.local_rank, 1);
}

TEST(RankEnvironmentTest, NonsenseIsNamed) {
  EXPECT_THAT(Read({{"RANK", "0"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("WORLD_SIZE is not")));
  EXPECT_THAT(Read({{"RANK", "2"}, {"WORLD_SIZE", "2"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("RANK is '2'")));
  EXPECT_THAT(Read({{"RANK", "0"}, {"WORLD_SIZE", "2"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("MASTER_ADDR")));
}

// Runs body(rank, result of JoinRanks) for every rank of a world on threads.
template <typename Body>
void JoinAll(int world, int tp, const std::function<std::string(int)>& identity, Body body,
             absl::Duration timeout = absl::Seconds(10)) {
  // Closed at once and opened again by rank 0.
  const std::string address = LocalAddress(ListenOn("127.0.0.1:0").value()).value();
  std::vector<std::thread> threads;
  threads.reserve(world);
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      body(rank, JoinRanks({rank, world, world, address}, tp, identity(rank), timeout));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(JoinRanksTest, FourRanksFormTwoReplicasOfTwo) {
  JoinAll(
      4, 2, [](int) { return "same"; },
      [](int rank, absl::StatusOr<Ranks> ranks) {
        ASSERT_OK(ranks.status());
        EXPECT_EQ(ranks->tensor->rank(), rank % 2);
        EXPECT_EQ(ranks->data->rank(), rank / 2);
        float value = static_cast<float>(rank);
        ASSERT_OK(ranks->tensor->AllReduceSum({&value, 1}));
        EXPECT_EQ(value, rank < 2 ? 1.0f : 5.0f);
        ASSERT_OK(ranks->data->AllReduceSum({&value, 1}));
        EXPECT_EQ(value, 6.0f);
        EXPECT_EQ(DescribeGroup(*ranks, false), rank % 2 == 0
                                                    ? "data-parallel group of ranks 0, 2"
                                                    : "data-parallel group of ranks 1, 3");
        EXPECT_OK(ranks->data->Barrier());
      });
}

TEST(JoinRanksTest, RanksOfDifferentRecipesRefuseEachOther) {
  JoinAll(
      2, 1, [](int rank) { return rank == 0 ? "a" : "b"; },
      [](int rank, absl::StatusOr<Ranks> ranks) {
        EXPECT_FALSE(ranks.ok());
        if (rank == 1) {
          EXPECT_THAT(ranks, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("recipe")));
        }
      },
      absl::Seconds(1));
}

TEST(JoinRanksTest, ADegreeThatDoesNotDivideTheWorldIsRefused) {
  EXPECT_THAT(JoinRanks({0, 3, 3, "127.0.0.1:1"}, 2, "", absl::Seconds(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a divisor of the 3 ranks")));
}

}  // namespace
}  // namespace hanlin
