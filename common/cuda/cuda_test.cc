// Error mapping and messages run everywhere; buffers, streams and graphs need a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

#include "common/cuda/capability.h"
#include "common/cuda/dynamic_library.h"
#include "common/cuda/status.h"
#include "common/cuda/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;

TEST(CudaStatusTest, MapsErrorsByWhoCanHelp) {
  EXPECT_TRUE(CudaStatus(cudaSuccess, "x").ok());
  EXPECT_EQ(CudaStatus(cudaErrorMemoryAllocation, "x").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CudaStatus(cudaErrorNoDevice, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CudaStatus(cudaErrorIllegalAddress, "x").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CudaStatus(cudaErrorInvalidValue, "x").code(), absl::StatusCode::kInternal);
}

TEST(CudaStatusTest, MessageSaysWhatWasDone) {
  EXPECT_THAT(Message(CudaStatus(cudaErrorInvalidValue, "copy of weights")),
              HasSubstr("copy of weights"));
}

TEST(CudaDeviceTest, TooOldACapabilityIsNamedWithTheWantedOne) {
  EXPECT_TRUE(CheckComputeCapability("A100", 8, 0).ok());
  EXPECT_TRUE(CheckComputeCapability("H100", 9, 0).ok());
  EXPECT_TRUE(CheckComputeCapability("B200", 10, 0).ok());
  const absl::Status status = CheckComputeCapability("T4", 7, 5);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("7.5"));
  EXPECT_THAT(Message(status), HasSubstr("8.0"));
}

TEST(CudaDeviceTest, OnlyHopperRunsHopperKernels) {
  EXPECT_FALSE(RunsHopperKernels(8, 0));
  EXPECT_FALSE(RunsHopperKernels(10, 0)) << "sm_90a code runs nowhere else";
  const bool forced = std::getenv("HANLIN_FAILPOINT_CUDA_PLAIN") != nullptr;
  EXPECT_EQ(RunsHopperKernels(9, 0), !forced);
}

TEST(CudaDeviceTest, MissingDeviceIsAFailedPrecondition) {
  EXPECT_EQ(OpenCudaDevice(4096).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenCudaDevice(-1).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DynamicLibraryTest, MissingLibraryIsNamedWithItsPurpose) {
  const auto library = DynamicLibrary::Open("libhanlin-none.so.9", "a test");
  EXPECT_EQ(library.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(library.status()), HasSubstr("libhanlin-none.so.9"));
  EXPECT_THAT(Message(library.status()), HasSubstr("a test"));
}

TEST(DynamicLibraryTest, FindsSymbolsAndNamesTheMissing) {
  const auto library = DynamicLibrary::Open("libm.so.6", "a test");
  ASSERT_TRUE(library.ok()) << library.status();
  double (*cosine)(double) = nullptr;
  ASSERT_TRUE(library->Find("cos", &cosine).ok());
  EXPECT_EQ(cosine(0.0), 1.0);
  EXPECT_THAT(Message(library->Find("no_such_function", &cosine)), HasSubstr("no_such_function"));
}

class CudaTest : public GpuTest {};

TEST_F(CudaTest, DeviceIsDescribed) {
  EXPECT_GT(device_.multiprocessors, 0);
  EXPECT_GE(device_.shared_memory_per_block, size_t{48} << 10);
  EXPECT_LE(device_.free_bytes, device_.total_bytes);
}

TEST_F(CudaTest, BufferKeepsWhatWasCopiedAndMoves) {
  const std::vector<int32_t> values = {1, 2, 3};
  DeviceBuffer<int32_t> buffer = OnDevice(values);
  DeviceBuffer<int32_t> moved = std::move(buffer);
  EXPECT_EQ(FromDevice(moved), values);
  EXPECT_EQ(moved.CopyFrom(std::vector<int32_t>(2)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaTest, TooMuchMemorySaysWhatIsFree) {
  const auto buffer = DeviceBuffer<float>::Create(size_t{1} << 50);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(buffer.status()), HasSubstr("are free"));
  EXPECT_FALSE(DeviceBuffer<float>::Create(std::numeric_limits<size_t>::max()).ok());
  EXPECT_TRUE(DeviceBuffer<float>::Create(16).ok()) << "the failure must not stick";
}

TEST_F(CudaTest, GraphReplaysWhatWasRecorded) {
  DeviceBuffer<int32_t> source = OnDevice(std::vector<int32_t>{7, 8});
  DeviceBuffer<int32_t> target = OnDevice(std::vector<int32_t>{0, 0});
  auto graph = CudaGraph::Capture(stream_, [&] {
    return CudaStatus(
        cudaMemcpyAsync(target.data(), source.data(), 8, cudaMemcpyDeviceToDevice, stream_.get()),
        "copy");
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(FromDevice(target), (std::vector<int32_t>{0, 0})) << "recording executes nothing";
  ASSERT_TRUE(graph->Launch(stream_).ok());
  EXPECT_EQ(FromDevice(target), (std::vector<int32_t>{7, 8}));
}

TEST_F(CudaTest, FailedRecordingLeavesTheStreamUsable) {
  const auto graph = CudaGraph::Capture(stream_, [] { return Internal("broken {}", 1); });
  EXPECT_THAT(Message(graph.status()), HasSubstr("broken 1"));
  EXPECT_TRUE(stream_.Synchronize().ok());
}

}  // namespace
}  // namespace hanlin
