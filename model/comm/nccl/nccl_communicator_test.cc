// The communicator at one rank: collectives, capture, abort, and a stream that stands still.
#include "model/comm/nccl/nccl_communicator.h"

#include <gmock/gmock.h>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/cuda/dynamic_library.h"
#include "common/cuda/testing.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {

class NcclTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    if (const auto library = DynamicLibrary::Open("libnccl.so.2", "a test"); !library.ok()) {
      GTEST_SKIP() << library.status();
    }
  }
};

TEST_F(NcclTest, OneRankSumsAndGathersItself) {
  ASSERT_OK_AND_ASSIGN(const auto communicator, MakeNcclCommunicator({}));
  EXPECT_EQ(communicator->size(), 1);
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const auto data = OnDevice(values);
  EXPECT_OK(communicator->AllReduceSum(data.data(), 6, stream_));
  EXPECT_EQ(FromDevice(data), values);
  const auto scratch = OnDevice(std::vector<float>(6)), out = OnDevice(std::vector<float>(6));
  const int64_t cuts[] = {0, 6};
  EXPECT_OK(communicator->ReduceScatterSum(data.data(), cuts, stream_));
  EXPECT_OK(communicator->AllGather(data.data(), cuts, stream_));
  EXPECT_EQ(FromDevice(data), values);
  EXPECT_OK(communicator->GatherColumns(data.data(), 2, 3, scratch.data(), out.data(), stream_));
  EXPECT_EQ(FromDevice(out), values);
  EXPECT_OK(communicator->Check());
}

TEST_F(NcclTest, CollectivesAreCaptured) {
  ASSERT_OK_AND_ASSIGN(const auto communicator, MakeNcclCommunicator({}));
  const auto data = OnDevice(std::vector<float>{1, 2}), scratch = OnDevice(std::vector<float>(2));
  const auto out = OnDevice(std::vector<float>(2));
  const auto graph = CudaGraph::Capture(stream_, [&]() -> absl::Status {
    RETURN_IF_ERROR(communicator->AllReduceSum(data.data(), 2, stream_));
    return communicator->GatherColumns(data.data(), 1, 2, scratch.data(), out.data(), stream_);
  });
  ASSERT_OK(graph.status());
  ASSERT_OK(graph->Launch(stream_));
  EXPECT_EQ(FromDevice(out), (std::vector<float>{1, 2}));
}

TEST_F(NcclTest, AnAbortedGroupFailsEveryCall) {
  ASSERT_OK_AND_ASSIGN(const auto communicator, MakeNcclCommunicator({}));
  communicator->Abort("the first reason");
  communicator->Abort("another");
  const auto data = OnDevice(std::vector<float>{1, 2});
  const absl::Status status = communicator->AllReduceSum(data.data(), 2, stream_);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(Message(communicator->Check()), ::testing::HasSubstr("the first reason"));
}

TEST_F(NcclTest, AStreamThatStandsStillEndsTheGroup) {
  ASSERT_OK_AND_ASSIGN(const auto communicator,
                       MakeNcclCommunicator({.timeout = absl::Milliseconds(300)}));
  absl::Notification go_on;
  ASSERT_EQ(
      cudaLaunchHostFunc(
          stream_.get(),
          [](void* n) { static_cast<absl::Notification*>(n)->WaitForNotification(); }, &go_on),
      cudaSuccess);
  ASSERT_OK(communicator->Watch(stream_));
  EXPECT_OK(communicator->Check());
  const absl::Time limit = absl::Now() + absl::Seconds(5);
  while (communicator->Check().ok() && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(absl::IsUnavailable(communicator->Check())) << communicator->Check();
  go_on.Notify();
}

}  // namespace
}  // namespace hanlin
