// For tests that need a device: SetUp opens device 0, or skips the test and says why.
#ifndef HANLIN_COMMON_CUDA_TESTING_H_
#define HANLIN_COMMON_CUDA_TESTING_H_

#include <gtest/gtest.h>

#include <span>
#include <utility>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/stream.h"

namespace hanlin {

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenCudaDevice(0);
    if (!device.ok()) GTEST_SKIP() << "needs a GPU: " << device.status();
    device_ = *std::move(device);
    auto stream = CudaStream::Create();
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = *std::move(stream);
  }

  template <typename T>
  static DeviceBuffer<T> OnDevice(const std::vector<T>& values) {
    auto buffer = DeviceBuffer<T>::From(std::span<const T>(values));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return *std::move(buffer);
  }

  // Waits for the stream first.
  template <typename T>
  std::vector<T> FromDevice(const DeviceBuffer<T>& buffer) {
    const absl::Status done = stream_.Synchronize();
    EXPECT_TRUE(done.ok()) << done;
    auto values = buffer.ToHost();
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? *std::move(values) : std::vector<T>(buffer.size());
  }

  CudaDevice device_;
  CudaStream stream_;
};

// Of kernels that only Hopper has.
class HopperTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !device_.hopper) GTEST_SKIP() << "not for the plain path";
  }
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_TESTING_H_
