// LayerNorm of training on the GPU against the CPU kernels, with the residual step, dropout and
// more rows than blocks; recomputation and reruns change no bit.
#include "kernels/norm/cuda/layer_norm_train.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "kernels/elementwise/cpu/elementwise.h"
#include "kernels/norm/cpu/layer_norm_backward.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::RelativeError;
using ::hanlin::testing::SameBits;
using ::hanlin::testing::ToFloats;
using ::hanlin::testing::TypeOf;

TEST(LayerNormTrainTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) float memory[16] = {};
  const CudaLayerNormTrainParams good = {.rows = 1,
                                         .width = 8,
                                         .x = memory,
                                         .weight = memory,
                                         .bias = memory,
                                         .mean = memory,
                                         .rstd = memory,
                                         .y = memory};
  const auto refused = [&](auto change) {
    CudaLayerNormTrainParams p = good;
    change(p);
    return CudaLayerNormTrain(p, nullptr).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](auto& p) { p.rows = 0; }));
  EXPECT_TRUE(refused([](auto& p) { p.width = 12; }));
  EXPECT_TRUE(refused([](auto& p) { p.width = 8200; }));
  EXPECT_TRUE(refused([](auto& p) { p.mean = nullptr; }));
  EXPECT_TRUE(refused([&](auto& p) { p.delta = memory; })) << "no sum";
  EXPECT_FALSE(CudaLayerNormBackward({.rows = 1, .width = 8}, nullptr).ok()) << "no pointers";
}

// What all bf16 numbers, and fp32 sums in another order, differ by.
template <typename T>
constexpr double kTolerance = sizeof(T) == 2 ? 4e-3 : 2e-6;

template <typename T>
struct Data {
  Data(int64_t rows, int64_t width)
      : rows(rows),
        width(width),
        x(Convert<T>(RandomFloats(rows * width, 1, 2.0f))),
        delta(Convert<T>(RandomFloats(rows * width, 2))),
        dy(Convert<T>(RandomFloats(rows * width, 3))),
        dx(Convert<T>(RandomFloats(rows * width, 4))),
        delta_bias(RandomFloats(width, 5)),
        weight(RandomFloats(width, 6)),
        bias(RandomFloats(width, 7)) {}

  int64_t rows, width;
  std::vector<T> x, delta, dy, dx;
  std::vector<float> delta_bias, weight, bias;
};

template <typename T>
struct Forward {
  std::vector<T> sum, y;
  std::vector<float> mean, rstd;
};

template <typename T>
struct Backward {
  std::vector<T> dx;
  std::vector<float> dweight, dbias, dx_sums;
};

class LayerNormTrainGpuTest : public HopperTest {
 protected:
  template <typename T>
  Forward<T> RunForward(const Data<T>& data, bool delta, const DropoutParams& dropout = {}) {
    const auto x = OnDevice(data.x), add = OnDevice(data.delta);
    const auto add_bias = OnDevice(data.delta_bias), weight = OnDevice(data.weight),
               bias = OnDevice(data.bias);
    const auto mean = OnDevice(std::vector<float>(data.rows, NAN)),
               rstd = OnDevice(std::vector<float>(data.rows, NAN));
    const auto y = OnDevice(std::vector<T>(data.x.size()));
    const absl::Status launched = CudaLayerNormTrain({.type = TypeOf<T>(),
                                                      .rows = data.rows,
                                                      .width = data.width,
                                                      .x = x.data(),
                                                      .delta = delta ? add.data() : nullptr,
                                                      .delta_bias = add_bias.data(),
                                                      .dropout = dropout,
                                                      .sum = x.data(),
                                                      .weight = weight.data(),
                                                      .bias = bias.data(),
                                                      .mean = mean.data(),
                                                      .rstd = rstd.data(),
                                                      .y = y.data()},
                                                     stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    return {FromDevice(x), FromDevice(y), FromDevice(mean), FromDevice(rstd)};
  }

  template <typename T>
  Backward<T> RunBackward(const Data<T>& data, const Forward<T>& forward, bool sums) {
    const auto x = OnDevice(forward.sum), dy = OnDevice(data.dy), dx = OnDevice(data.dx);
    const auto weight = OnDevice(data.weight), mean = OnDevice(forward.mean),
               rstd = OnDevice(forward.rstd);
    const auto dweight = OnDevice(std::vector<float>(data.width, 1.0f)),
               dbias = OnDevice(std::vector<float>(data.width, -1.0f)),
               dx_sums = OnDevice(std::vector<float>(data.width, 2.0f));
    const auto workspace = OnDevice(
        std::vector<uint8_t>(CudaLayerNormBackwardBytes(TypeOf<T>(), data.rows, data.width), 0xff));
    const absl::Status launched = CudaLayerNormBackward({.type = TypeOf<T>(),
                                                         .rows = data.rows,
                                                         .width = data.width,
                                                         .x = x.data(),
                                                         .weight = weight.data(),
                                                         .mean = mean.data(),
                                                         .rstd = rstd.data(),
                                                         .dy = dy.data(),
                                                         .dx = dx.data(),
                                                         .dweight = dweight.data(),
                                                         .dbias = dbias.data(),
                                                         .dx_sums = sums ? dx_sums.data() : nullptr,
                                                         .workspace = workspace.data()},
                                                        stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    return {FromDevice(dx), FromDevice(dweight), FromDevice(dbias), FromDevice(dx_sums)};
  }

  // Forward and backward; the CPU's passes take the sums that the device stored.
  template <typename T>
  void CompareWithCpu(int64_t rows, int64_t width, bool delta) {
    SCOPED_TRACE(::testing::Message() << rows << " rows of " << width << " of " << sizeof(T)
                                      << " bytes, delta " << delta);
    const Data<T> data(rows, width);
    const Forward<T> got = RunForward(data, delta);
    ThreadPool pool(1);
    const std::vector<float> sum = ToFloats(got.sum);
    std::vector<float> want_sum = ToFloats(data.x);
    if (delta) {
      DropoutAdd({rows,
                  width,
                  ToFloats(data.delta).data(),
                  data.delta_bias.data(),
                  want_sum.data(),
                  want_sum.data(),
                  {}},
                 pool);
    }
    EXPECT_LE(RelativeError(sum, want_sum), kTolerance<T>);
    std::vector<float> mean(rows), rstd(rows), y(sum.size());
    LayerNormTrain({rows, width, sum.data(), data.weight.data(), data.bias.data(), 1e-5f,
                    mean.data(), rstd.data(), y.data()},
                   pool);
    EXPECT_LE(RelativeError(got.mean, mean), 1e-5);
    EXPECT_LE(RelativeError(got.rstd, rstd), 1e-6);
    EXPECT_LE(RelativeError(ToFloats(got.y), y), kTolerance<T>);

    std::vector<float> dx = ToFloats(data.dx), dweight(width, 1.0f), dbias(width, -1.0f);
    LayerNormBackward({rows, width, sum.data(), data.weight.data(), mean.data(), rstd.data(),
                       ToFloats(data.dy).data(), dx.data(), dweight.data(), dbias.data()},
                      pool);
    for (const bool sums : {false, true}) {
      SCOPED_TRACE(sums);
      const Backward<T> gradients = RunBackward(data, got, sums);
      const std::vector<float> stored = ToFloats(gradients.dx);
      EXPECT_LE(RelativeError(stored, dx), kTolerance<T>);
      EXPECT_LE(RelativeError(gradients.dweight, dweight), 3e-6);
      EXPECT_LE(RelativeError(gradients.dbias, dbias), 3e-6);
      std::vector<float> dx_sums(width, 2.0f);
      for (int64_t c = 0; c < width && sums; ++c) {
        double of_column = 2;
        for (int64_t r = 0; r < rows; ++r) of_column += stored[r * width + c];
        dx_sums[c] = static_cast<float>(of_column);
      }
      EXPECT_LE(RelativeError(gradients.dx_sums, dx_sums), sums ? 3e-6 : 0);
    }
  }
};

// Rows of a warp and of a block, with one pack a thread and more; whole and broken warps; more rows
// than blocks.
// What the sanitizers run.
TEST_F(LayerNormTrainGpuTest, AFewSmallShapes) {
  for (const int64_t width : {24, 768, 2568}) {
    CompareWithCpu<float>(5, width, true);
    CompareWithCpu<BFloat16>(150, width, false);
  }
}

TEST_F(LayerNormTrainGpuTest, MatchesTheCpu) {
  for (const int64_t width :
       {8, 24, 64, 200, 512, 520, 768, 1024, 1280, 1536, 2048, 2560, 2568, 4096, 5120, 8192}) {
    for (const bool delta : {false, true}) {
      CompareWithCpu<float>(5, width, delta);
      CompareWithCpu<BFloat16>(5, width, delta);
    }
  }
  CompareWithCpu<float>(1, 768, true);
  CompareWithCpu<BFloat16>(3000, 64, false);
  CompareWithCpu<float>(1400, 320, false);
  for (const int64_t width : {768, 2048, 2560, 5120}) {
    CompareWithCpu<BFloat16>(1500, width, false);
    CompareWithCpu<float>(500, width, false);
  }
}

TEST_F(LayerNormTrainGpuTest, DropsWhatTheCpuDrops) {
  const DropoutParams dropout = {0.3f, 0x123456789abcdefull, 9, 4, 100};
  for (const int64_t width : {8, 72, 128, 768, 1600, 5120}) {
    const Data<float> data(7, width);
    const Forward<float> got = RunForward(data, true, dropout);
    ThreadPool pool(1);
    std::vector<float> want = data.x;
    DropoutAdd(
        {7, width, data.delta.data(), data.delta_bias.data(), want.data(), want.data(), dropout},
        pool);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got.sum[i], want[i], 4e-6) << width;
    const Data<BFloat16> narrow(7, width);
    const Forward<BFloat16> halves = RunForward(narrow, true, dropout);
    for (size_t i = 0; i < want.size(); ++i) {
      const bool dropped = want[i] == data.x[i];
      ASSERT_TRUE(!dropped || halves.sum[i].bits == narrow.x[i].bits) << width;
    }
  }
}

TEST_F(LayerNormTrainGpuTest, RecomputationAndRerunsChangeNoBit) {
  for (const int64_t width : {128, 768, 2560, 5120}) {
    SCOPED_TRACE(width);
    Data<BFloat16> data(1200, width);
    const Forward<BFloat16> first = RunForward(data, true, {0.1f, 1, 2, 3, 4}),
                            again = RunForward(data, true, {0.1f, 1, 2, 3, 4});
    EXPECT_TRUE(SameBits(first.sum.data(), again.sum.data(), first.sum.size()));
    const Backward<BFloat16> one = RunBackward(data, first, true),
                             two = RunBackward(data, first, true);
    EXPECT_TRUE(SameBits(one.dx.data(), two.dx.data(), one.dx.size()));
    EXPECT_EQ(one.dweight, two.dweight);
    EXPECT_EQ(one.dbias, two.dbias);
    EXPECT_EQ(one.dx_sums, two.dx_sums);
    data.x = first.sum;
    const Forward<BFloat16> recomputed = RunForward(data, false);
    EXPECT_TRUE(SameBits(first.y.data(), recomputed.y.data(), first.y.size()));
    EXPECT_EQ(first.mean, recomputed.mean);
    EXPECT_EQ(first.rstd, recomputed.rstd);
  }
}

}  // namespace
}  // namespace hanlin
