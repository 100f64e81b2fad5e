// host.h over invented /proc and /sys/fs/cgroup trees.
#include "common/host/host.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

constexpr uint64_t kMiB = 1 << 20;

TEST(HostTest, ThisMachineHasMemoryAndProcessors) {
  ASSERT_OK_AND_ASSIGN(const uint64_t bytes, AvailableMemoryBytes());
  EXPECT_GT(bytes, kMiB);
  EXPECT_GE(AvailableCpus(), 1);
}

TEST(HostTest, WithoutCgroupsMemAvailableCounts) {
  TempDir root;
  root.Write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    2048 kB\n");
  EXPECT_EQ(AvailableMemoryBytesUnder(root.path()).value(), 2 * kMiB);
  EXPECT_EQ(AvailableCpusUnder(root.path(), 6), 6);
}

TEST(HostTest, MissingMeminfoIsAnError) {
  TempDir root;
  EXPECT_THAT(AvailableMemoryBytesUnder(root.path()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("MemAvailable")));
}

TEST(HostTest, TightestV2LimitOnTheWayUpCounts) {
  TempDir root;
  root.Write("proc/meminfo", "MemAvailable: 1048576 kB\n");
  root.Write("proc/self/cgroup", "0::/pod/container\n");
  root.Write("sys/fs/cgroup/pod/memory.max", "104857600\n");  // 100 MiB
  root.Write("sys/fs/cgroup/pod/memory.current", "62914560\n");
  root.Write("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 20971520\n");
  root.Write("sys/fs/cgroup/pod/container/memory.max", "max\n");
  root.Write("sys/fs/cgroup/pod/container/memory.current", "5\n");
  EXPECT_EQ(AvailableMemoryBytesUnder(root.path()).value(), 60 * kMiB);
}

TEST(HostTest, V1LimitAtTheMountCountsWhenOurPathIsNotVisible) {
  TempDir root;
  root.Write("proc/meminfo", "MemAvailable: 1048576 kB\n");
  root.Write("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n");
  root.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "10485760\n");
  root.Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "20971520\n");
  EXPECT_EQ(AvailableMemoryBytesUnder(root.path()).value(), 0u);
}

TEST(HostTest, CpuQuotaIsRoundedUpAndNeverBelowOne) {
  TempDir root;
  root.Write("proc/self/cgroup", "0::/a\n");
  root.Write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  EXPECT_EQ(AvailableCpusUnder(root.path(), 8), 2);
  root.Write("sys/fs/cgroup/a/cpu.max", "1000 100000\n");
  EXPECT_EQ(AvailableCpusUnder(root.path(), 8), 1);
  root.Write("sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(AvailableCpusUnder(root.path(), 8), 8);
}

TEST(HostTest, V1CpuQuotaCounts) {
  TempDir root;
  root.Write("proc/self/cgroup", "3:cpu,cpuacct:/a\n");
  root.Write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000\n");
  root.Write("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(AvailableCpusUnder(root.path(), 8), 3);
  root.Write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(AvailableCpusUnder(root.path(), 8), 8);
}

}  // namespace
}  // namespace hanlin
