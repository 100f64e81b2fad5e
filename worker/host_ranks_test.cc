// Forked ranks know their number and die with the first; group sizes that do not fit are refused.
#include "worker/host_ranks.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ForkHostRanksTest, EveryRankKnowsItsNumberAndDiesWithTheFirst) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const pid_t first = fork();
  if (first == 0) {
    close(fds[0]);
    const char index = static_cast<char>(ForkHostRanks(3).value_or(99));
    if (write(fds[1], &index, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  close(fds[1]);
  std::set<int> seen;
  char index;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(read(fds[0], &index, 1), 1);
    seen.insert(index);
  }
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2}));
  kill(first, SIGKILL);
  waitpid(first, nullptr, 0);
  // The pipe ends when the last writer is gone.
  pollfd event = {.fd = fds[0], .events = POLLIN};
  ASSERT_EQ(poll(&event, 1, 20'000), 1);
  EXPECT_EQ(read(fds[0], &index, 1), 0);
  close(fds[0]);
}

TEST(ForkHostRanksTest, RefusesNonsense) {
  for (const int count : {0, -1, 65}) {
    EXPECT_THAT(ForkHostRanks(count),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--host-ranks is")));
  }
}

TEST(CheckGroupSizeTest, PodsTimesRanksIsTheDegree) {
  unsetenv("LWS_GROUP_SIZE");
  EXPECT_OK(CheckGroupSize(4, 1));
  setenv("LWS_GROUP_SIZE", "2", 1);
  EXPECT_OK(CheckGroupSize(4, 2));
  EXPECT_THAT(CheckGroupSize(4, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--tp is 4, but the group")));
  for (const char* bad : {"", "two", "2x", "0", "-2"}) {
    setenv("LWS_GROUP_SIZE", bad, 1);
    EXPECT_THAT(CheckGroupSize(1, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("LWS_GROUP_SIZE")));
  }
  unsetenv("LWS_GROUP_SIZE");
}

}  // namespace
}  // namespace hanlin
