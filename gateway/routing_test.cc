// Least outstanding work, turns among equals, address lists.
#include "gateway/routing.h"

#include <vector>

#include "common/testing/testing.h"
#include "gateway/endpoints.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RoutingTest, TheLeastLoadedGroupIsChosenWhoseverTurnItIs) {
  const std::vector<GroupLoad> groups = {{5, 0}, {2, 100}, {3, 0}};
  for (size_t turn = 0; turn < 7; ++turn) EXPECT_EQ(LeastOutstanding(groups, turn), 1);
}

TEST(RoutingTest, PromptTokensWeigh) {
  EXPECT_EQ(LeastOutstanding(std::vector<GroupLoad>{{1, 4096}, {4, 0}}, 0), 1);
}

TEST(RoutingTest, EqualsTakeTurns) {
  const std::vector<GroupLoad> groups(3);
  EXPECT_EQ(LeastOutstanding(groups, 0), 0);
  EXPECT_EQ(LeastOutstanding(groups, 1), 1);
  EXPECT_EQ(LeastOutstanding(groups, 5), 2);
}

TEST(RoutingTest, NoGroupNoChoice) { EXPECT_EQ(LeastOutstanding({}, 3), std::nullopt); }

TEST(RoutingTest, OthersAreWhatIsReportedBeyondOnesOwn) {
  const GroupLoad others = OthersLoad({7, 100}, {3, 400});
  EXPECT_EQ(others.requests, 4);
  EXPECT_EQ(others.prompt_tokens, 0);
}

TEST(EndpointsTest, ListsAreParsedSortedAndMadeUnique) {
  ASSERT_OK_AND_ASSIGN(const auto endpoints, ParseEndpoints("--workers", "b:2,unix:/s,a:1,b:2"));
  ASSERT_OK_AND_ASSIGN(const auto addresses, Resolve(endpoints));
  EXPECT_THAT(addresses, ElementsAre("a:1", "b:2", "unix:/s"));
}

TEST(EndpointsTest, ANameStandsForItsAddresses) {
  ASSERT_OK_AND_ASSIGN(const auto endpoints, ParseEndpoints("--workers", "dns:///localhost:7000"));
  ASSERT_OK_AND_ASSIGN(const auto addresses, Resolve(endpoints));
  EXPECT_THAT(addresses, ::testing::Contains(::testing::AnyOf("127.0.0.1:7000", "[::1]:7000")));
}

TEST(EndpointsTest, MalformedAddressesAreNamed) {
  for (const char* list : {"", ",", "host", "host:", "host:0", "host:70000", ":7", "a:1,b", "unix:",
                           "dns:///name", "dns:///", "dns://x/a:1", "dns://1.2.3.4:0/a:1"}) {
    EXPECT_THAT(ParseEndpoints("--workers", list),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--workers")))
        << list;
  }
}

}  // namespace
}  // namespace hanlin
