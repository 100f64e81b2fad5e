// AdamW, split master weights and the norm on the GPU against the CPU kernels.
#include "kernels/optim/cuda/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "kernels/optim/cuda/split_master.h"

namespace hanlin {
namespace {

using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::SameBits;

TEST(AdamWCudaTest, RefusesMissingArraysBeforeAnyLaunch) {
  alignas(16) float memory[4] = {};
  CudaAdamWArrays arrays = {.count = 4, .gradients = memory, .m = memory, .v = memory};
  EXPECT_FALSE(CudaAdamW(arrays, {}, nullptr).ok());
  arrays.high = reinterpret_cast<BFloat16*>(memory);
  EXPECT_FALSE(CudaAdamW(arrays, {}, nullptr).ok()) << "half a master";
}

class AdamWGpuTest : public HopperTest {
 protected:
  struct Halves {
    DeviceBuffer<BFloat16> high;
    DeviceBuffer<uint16_t> low;
  };
  Halves Split(const std::vector<float>& values) {
    const auto wide = OnDevice(values);
    Halves halves = {OnDevice(std::vector<BFloat16>(values.size())),
                     OnDevice(std::vector<uint16_t>(values.size()))};
    EXPECT_EQ(LaunchSplitMaster(wide.data(), values.size(), halves.high.data(), halves.low.data(),
                                stream_.get()),
              cudaSuccess);
    EXPECT_TRUE(stream_.Synchronize().ok());
    return halves;
  }
  std::vector<float> Join(const Halves& halves) {
    const auto wide = OnDevice(std::vector<float>(halves.high.size()));
    EXPECT_EQ(LaunchJoinMaster(halves.high.data(), halves.low.data(), wide.size(), wide.data(),
                               stream_.get()),
              cudaSuccess);
    return FromDevice(wide);
  }
};

TEST_F(AdamWGpuTest, FollowsTheCpuOverFiveStepsInBothFormsOfTheMaster) {
  for (const int64_t count : {4, 1004, 100000}) {
    const std::vector<float> start = RandomFloats(count, 1);
    const auto whole = OnDevice(start);
    const Halves halves = Split(start);
    const auto zeros = [&] { return OnDevice(std::vector<float>(count)); };
    const auto m1 = zeros(), v1 = zeros(), m2 = zeros(), v2 = zeros();
    std::vector<float> p = start, m(count), v(count);
    ThreadPool pool(1);
    for (int step = 1; step <= 5; ++step) {
      const std::vector<float> g = RandomFloats(count, 100 + step);
      const AdamWParams params = {.count = count,
                                  .parameters = p.data(),
                                  .gradients = g.data(),
                                  .m = m.data(),
                                  .v = v.data(),
                                  .gradient_scale = 0.5f,
                                  .learning_rate = 1e-2,
                                  .weight_decay = 0.1,
                                  .step = step};
      AdamW(params, pool);
      const auto d_g = OnDevice(g);
      ASSERT_TRUE(CudaAdamW({.count = count,
                             .parameters = whole.data(),
                             .gradients = d_g.data(),
                             .m = m1.data(),
                             .v = v1.data()},
                            params, stream_.get())
                      .ok());
      ASSERT_TRUE(CudaAdamW({.count = count,
                             .high = halves.high.data(),
                             .low = halves.low.data(),
                             .gradients = d_g.data(),
                             .m = m2.data(),
                             .v = v2.data()},
                            params, stream_.get())
                      .ok());
      ASSERT_TRUE(stream_.Synchronize().ok());
    }
    const std::vector<float> got = FromDevice(whole), joined = Join(halves);
    EXPECT_TRUE(SameBits(got.data(), joined.data(), got.size())) << "the forms differ";
    const std::vector<float> got_m = FromDevice(m1), got_v = FromDevice(v1);
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_NEAR(got[i], p[i], 1e-6 * (1 + std::abs(p[i]))) << i;
      ASSERT_NEAR(got_m[i], m[i], 1e-6);
      ASSERT_NEAR(got_v[i], v[i], 1e-6);
    }
  }
}

TEST_F(AdamWGpuTest, SplittingLosesNoBitAndRoundsTheUpperHalf) {
  std::vector<float> values = RandomFloats(1000, 1);
  values.insert(values.end(), {0.0f, -0.0f, INFINITY, -INFINITY, 3.4028235e38f, -3.4028235e38f,
                               0x1.01p0f, 0x1.03p0f, 1e-45f, -1e-40f, 0x1.00fffep0f});
  const Halves halves = Split(values);
  const std::vector<BFloat16> high = FromDevice(halves.high);
  const std::vector<float> back = Join(halves);
  EXPECT_TRUE(SameBits(back.data(), values.data(), values.size()));
  for (size_t i = 0; i < 1000; ++i) {
    const float error = std::abs(ToFloat(high[i]) - values[i]);
    ASSERT_LE(error, std::abs(values[i]) * 0x1p-8f) << values[i];
  }
  EXPECT_TRUE(std::isnan(Join(Split({NAN, -NAN}))[1]));
}

TEST_F(AdamWGpuTest, JoinsRangesOfTheMaster) {
  const std::vector<float> values = RandomFloats(6000, 1);
  const Halves halves = Split(values);
  const auto ranges = OnDevice(std::vector<MasterRange>{{.from = 5, .to = 10, .count = 5000},
                                                        {.from = 100, .to = 0, .count = 3}});
  const auto to = OnDevice(std::vector<float>(5011, 7.0f));
  ASSERT_EQ(LaunchJoinRanges(halves.high.data(), halves.low.data(), ranges.data(), 2, to.data(),
                             stream_.get()),
            cudaSuccess);
  const std::vector<float> got = FromDevice(to);
  EXPECT_TRUE(SameBits(got.data(), &values[100], 3));
  EXPECT_EQ(got[3], 7.0f);
  EXPECT_TRUE(SameBits(&got[10], &values[5], 5000));
  EXPECT_EQ(got[5010], 7.0f);
}

TEST_F(AdamWGpuTest, SumOfSquaresIsThatOfTheCpu) {
  const auto partials = OnDevice(std::vector<double>(kSquareParts, NAN));
  const auto sum = OnDevice(std::vector<double>{NAN});
  ThreadPool pool(1);
  for (const int64_t count : {4, 1000, 300000}) {
    const std::vector<float> x = RandomFloats(count, 1, 100.0f);
    const auto d_x = OnDevice(x);
    const double want = SumOfSquares(x.data(), count, pool);
    for (const bool add : {false, true}) {
      ASSERT_TRUE(
          CudaSumOfSquares(d_x.data(), count, add, partials.data(), sum.data(), stream_.get())
              .ok());
      EXPECT_NEAR(FromDevice(sum)[0] / want, add ? 2.0 : 1.0, 1e-6) << count;
    }
  }
}

TEST_F(AdamWGpuTest, SumOfSquaresShowsWhatIsNotFinite) {
  std::vector<float> x(64, 1.0f);
  x[63] = INFINITY;
  const auto d_x = OnDevice(x);
  const auto partials = OnDevice(std::vector<double>(kSquareParts));
  const auto sum = OnDevice(std::vector<double>{0.0});
  ASSERT_TRUE(
      CudaSumOfSquares(d_x.data(), 64, false, partials.data(), sum.data(), stream_.get()).ok());
  EXPECT_FALSE(std::isfinite(FromDevice(sum)[0]));
}

}  // namespace
}  // namespace hanlin
