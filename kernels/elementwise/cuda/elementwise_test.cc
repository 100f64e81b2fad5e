// Elementwise passes and column sums on the GPU against the CPU kernels.
#include "kernels/elementwise/cuda/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::RelativeError;
using ::hanlin::testing::ToFloats;
using ::hanlin::testing::TypeOf;

TEST(ElementwiseCudaTest, RefusesCountsThatAreNotMultiplesOfEight) {
  constexpr auto kType = ComputeType::kFloat32;
  alignas(16) float memory[8] = {};
  EXPECT_FALSE(CudaGelu(GeluForm::kTanh, kType, memory, 12, memory, nullptr).ok());
  EXPECT_FALSE(CudaGeluBackwardSums(GeluForm::kErf, kType, memory, memory, 1, 4, memory, memory,
                                    memory, nullptr)
                   .ok());
  EXPECT_FALSE(CudaDropout({}, kType, memory, 2, 4, memory, nullptr).ok());
  EXPECT_FALSE(CudaAddColumnSums(kType, memory, 2, 4, memory, memory, nullptr).ok());
  EXPECT_FALSE(CudaNarrow(memory, 4, memory, nullptr).ok());
}

class ElementwiseGpuTest : public HopperTest {
 protected:
  template <typename T>
  void CheckGelu(GeluForm form, int64_t rows, int64_t width) {
    SCOPED_TRACE(::testing::Message() << static_cast<int>(form) << ", " << rows << " rows of "
                                      << width << " of " << sizeof(T) << " bytes");
    const int64_t count = rows * width;
    std::vector<float> wide = RandomFloats(count, 1, 3.0f);
    wide[0] = 30.0f;
    wide[1] = -30.0f;
    wide[2] = 0.0f;
    wide[3] = 1e4f;
    wide[4] = -1e4f;
    const auto x = Convert<T>(wide), dy = Convert<T>(RandomFloats(count, 2));
    const auto d_x = OnDevice(x), d_dy = OnDevice(dy), y = OnDevice(std::vector<T>(count));
    ASSERT_TRUE(CudaGelu(form, TypeOf<T>(), d_x.data(), count, y.data(), stream_.get()).ok());
    const auto workspace =
        OnDevice(std::vector<uint8_t>(CudaColumnSumsBytes(TypeOf<T>(), rows, width), 0xff));
    const auto sums = OnDevice(std::vector<float>(width, 1.0f));
    ASSERT_TRUE(CudaGeluBackwardSums(form, TypeOf<T>(), d_x.data(), d_dy.data(), rows, width,
                                     d_dy.data(), sums.data(), workspace.data(), stream_.get())
                    .ok());
    const std::vector<float> got_y = ToFloats(FromDevice(y)), got_dx = ToFloats(FromDevice(d_dy));
    ThreadPool pool(1);
    std::vector<float> want_y(count), want_dx(count);
    Gelu(form, ToFloats(x).data(), count, want_y.data(), pool);
    GeluBackward(form, ToFloats(x).data(), ToFloats(dy).data(), count, want_dx.data(), pool);
    const double tolerance = sizeof(T) == 2 ? 0x1p-8 : 2e-6;
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_NEAR(got_y[i], want_y[i], tolerance * (1 + std::abs(want_y[i]))) << ToFloat(x[i]);
      ASSERT_NEAR(got_dx[i], want_dx[i], 3 * tolerance * (1 + std::abs(want_dx[i])))
          << ToFloat(x[i]);
    }
    ExpectSums(FromDevice(sums), got_dx, rows, width);
  }

  // What was stored, added up onto ones.
  static void ExpectSums(const std::vector<float>& got, const std::vector<float>& stored,
                         int64_t rows, int64_t width) {
    std::vector<float> want(width, 1.0f);
    ThreadPool pool(1);
    AddColumnSums(stored.data(), rows, width, want.data(), pool);
    EXPECT_LE(RelativeError(got, want), 2e-6);
  }

  template <typename T>
  void CheckDropout(int64_t rows, int64_t width, float rate) {
    SCOPED_TRACE(::testing::Message()
                 << rows << " rows of " << width << " of " << sizeof(T) << " bytes, rate " << rate);
    const DropoutParams dropout = {rate, 0x123456789abcdefull, 9, 4, 100};
    const auto x = Convert<T>(RandomFloats(rows * width, 1));
    const auto d_x = OnDevice(x);
    ASSERT_TRUE(
        CudaDropout(dropout, TypeOf<T>(), d_x.data(), rows, width, d_x.data(), stream_.get()).ok());
    const std::vector<T> got = FromDevice(d_x);
    ThreadPool pool(1);
    std::vector<float> want(x.size());
    DropoutAdd({rows, width, ToFloats(x).data(), nullptr, nullptr, want.data(), dropout}, pool);
    const std::vector<T> rounded = Convert<T>(want);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(ToFloat(got[i]), ToFloat(rounded[i])) << i;

    const auto again = OnDevice(x);
    const auto workspace =
        OnDevice(std::vector<uint8_t>(CudaColumnSumsBytes(TypeOf<T>(), rows, width), 0xff));
    const auto sums = OnDevice(std::vector<float>(width, 1.0f));
    ASSERT_TRUE(CudaDropoutSums(dropout, TypeOf<T>(), again.data(), rows, width, again.data(),
                                sums.data(), workspace.data(), stream_.get())
                    .ok());
    const std::vector<float> stored = ToFloats(FromDevice(again));
    EXPECT_EQ(stored, ToFloats(got)) << "with sums";
    ExpectSums(FromDevice(sums), stored, rows, width);
  }

  template <typename T>
  void CheckColumnSums(int64_t rows, int64_t width) {
    SCOPED_TRACE(::testing::Message()
                 << rows << " rows of " << width << " of " << sizeof(T) << " bytes");
    const auto x = Convert<T>(RandomFloats(rows * width, 1));
    const auto d_x = OnDevice(x);
    const auto workspace =
        OnDevice(std::vector<uint8_t>(CudaColumnSumsBytes(TypeOf<T>(), rows, width), 0xff));
    std::vector<float> results[2], want(width, 1.0f);
    for (std::vector<float>& result : results) {
      const auto sums = OnDevice(std::vector<float>(width, 1.0f));
      ASSERT_TRUE(CudaAddColumnSums(TypeOf<T>(), d_x.data(), rows, width, sums.data(),
                                    workspace.data(), stream_.get())
                      .ok());
      result = FromDevice(sums);
    }
    ThreadPool pool(1);
    AddColumnSums(ToFloats(x).data(), rows, width, want.data(), pool);
    EXPECT_LE(RelativeError(results[0], want), 2e-6);
    EXPECT_EQ(results[0], results[1]) << "a rerun";
  }
};

// What the sanitizers run.
TEST_F(ElementwiseGpuTest, AFewSmallShapes) {
  CheckGelu<BFloat16>(GeluForm::kTanh, 70, 136);
  CheckGelu<float>(GeluForm::kErf, 5, 72);
  CheckDropout<BFloat16>(5, 72, 0.1f);
  CheckColumnSums<float>(300, 136);
}

TEST_F(ElementwiseGpuTest, GeluAndItsSlopeMatchTheCpu) {
  for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
    for (const auto& [rows, width] : {std::pair{1, 8}, {5, 72}, {700, 136}, {1, 3072}}) {
      CheckGelu<float>(form, rows, width);
      CheckGelu<BFloat16>(form, rows, width);
    }
  }
}

TEST_F(ElementwiseGpuTest, DropsWhatTheCpuDrops) {
  for (const int64_t width : {8, 72, 128, 768}) {
    for (const float rate : {0.0f, 0.1f, 0.9f}) {
      CheckDropout<float>(5, width, rate);
      CheckDropout<BFloat16>(5, width, rate);
      CheckDropout<BFloat16>(300, width, rate);
    }
  }
}

TEST_F(ElementwiseGpuTest, ColumnSumsMatchTheCpu) {
  for (const int64_t rows : {1, 7, 8, 9, 300, 5000}) {
    for (const int64_t width : {8, 136, 264}) {
      CheckColumnSums<float>(rows, width);
      CheckColumnSums<BFloat16>(rows, width);
    }
  }
  CheckColumnSums<BFloat16>(20, 20480);
}

TEST_F(ElementwiseGpuTest, ConversionsRoundLikeTheCpu) {
  std::vector<float> x = RandomFloats(1000, 1);
  x.insert(x.end(), {0.0f, -0.0f, INFINITY, -INFINITY, 3.4e38f, 0x1.01p0f, 0x1.03p0f, 1e-40f});
  const auto wide = OnDevice(x);
  const auto narrow = OnDevice(std::vector<BFloat16>(x.size()));
  ASSERT_TRUE(CudaNarrow(wide.data(), x.size(), narrow.data(), stream_.get()).ok());
  ASSERT_TRUE(CudaWiden(narrow.data(), x.size(), wide.data(), stream_.get()).ok());
  const std::vector<float> back = FromDevice(wide);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back[i], ToFloat(ToBFloat16(x[i])));
}

}  // namespace
}  // namespace hanlin
