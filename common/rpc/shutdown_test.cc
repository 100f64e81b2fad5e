// Signals as events. Apart from the other tests: no thread may exist before the signals are
// blocked.
#include "common/rpc/shutdown.h"

#include <unistd.h>

#include <csignal>

#include "absl/time/clock.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

TEST(ShutdownSignalTest, FirstSignalNotifies) {
  ShutdownSignal shutdown;
  EXPECT_FALSE(shutdown.WaitFor(absl::Milliseconds(10)));
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(shutdown.WaitFor(absl::Seconds(5)));
}

TEST(ShutdownSignalDeathTest, SecondSignalEndsTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        kill(getpid(), SIGTERM);
        shutdown.Wait();
        absl::SleepFor(absl::Milliseconds(300));
        kill(getpid(), SIGINT);
        sleep(10);
      },
      ::testing::ExitedWithCode(1), "second signal");
}

}  // namespace
}  // namespace hanlin
