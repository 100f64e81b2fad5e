// The products of training on the GPU against those of the CPU, in both types, at shapes on and off
// the alignment that tensor cores want.
#include "kernels/gemm/cuda/train_products.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/kernel_testing.h"
#include "kernels/gemm/cpu/matmul.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Convert;
using ::hanlin::testing::RandomFloats;
using ::hanlin::testing::RelativeError;
using ::hanlin::testing::ToFloats;
using ::hanlin::testing::TypeOf;

class TrainProductsTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    auto products = CudaTrainProducts::Create();
    ASSERT_TRUE(products.ok()) << products.status();
    products_ = *std::move(products);
  }

  template <typename T>
  void CompareWithCpu(int64_t rows, int64_t outputs, int64_t inputs) {
    SCOPED_TRACE(::testing::Message() << rows << " rows, " << outputs << " outputs, " << inputs
                                      << " inputs of " << sizeof(T) << " bytes");
    const CudaTrainProducts::Shape shape = {TypeOf<T>(), rows, outputs, inputs};
    const auto x = Convert<T>(RandomFloats(rows * inputs, 1)),
               w = Convert<T>(RandomFloats(outputs * inputs, 2)),
               dy = Convert<T>(RandomFloats(rows * outputs, 3)),
               bias = Convert<T>(RandomFloats(outputs, 4));
    const auto d_x = OnDevice(x), d_w = OnDevice(w), d_dy = OnDevice(dy), d_bias = OnDevice(bias);
    const auto y = OnDevice(std::vector<T>(dy.size())), plain = OnDevice(std::vector<T>(dy.size())),
               dx = OnDevice(std::vector<T>(x.size()));
    const std::vector<float> before = RandomFloats(w.size(), 5);
    const auto dw = OnDevice(before);
    const auto run = [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; };
    run(products_->Forward(shape, d_x.data(), d_w.data(), d_bias.data(), y.data(), stream_));
    run(products_->Forward(shape, d_x.data(), d_w.data(), nullptr, plain.data(), stream_));
    const auto sum = OnDevice(std::vector<T>(dy.size()));
    run(products_->ForwardSum(shape, d_x.data(), d_w.data(), d_bias.data(), d_dy.data(), sum.data(),
                              stream_));
    run(products_->Input(shape, d_dy.data(), d_w.data(), dx.data(), stream_));
    // Overwritten, whatever was there, then added to.
    const auto once = OnDevice(std::vector<float>(w.size(), std::nanf("")));
    run(products_->Weight(shape, d_dy.data(), d_x.data(), once.data(), false, stream_));
    run(products_->Weight(shape, d_dy.data(), d_x.data(), dw.data(), true, stream_));

    const std::vector<float> wide_x = ToFloats(x), wide_w = ToFloats(w), wide_dy = ToFloats(dy),
                             wide_bias = ToFloats(bias);
    std::vector<float> want_y(dy.size()), want_dx(x.size()), want_dw = before, want_once(w.size());
    ThreadPool pool(1);
    MatMulParams forward = {.m = rows,
                            .n = outputs,
                            .k = inputs,
                            .a = wide_x.data(),
                            .a_stride = inputs,
                            .b = wide_w.data(),
                            .b_stride = inputs,
                            .b_transposed = true,
                            .c = want_y.data(),
                            .c_stride = outputs};
    const double tolerance = sizeof(T) == 2 ? 4e-3 : 2e-6;
    MatMul(forward, pool);
    EXPECT_LE(RelativeError(ToFloats(FromDevice(plain)), want_y), tolerance);
    forward.bias = wide_bias.data();
    MatMul(forward, pool);
    EXPECT_LE(RelativeError(ToFloats(FromDevice(y)), want_y), tolerance);
    for (size_t i = 0; i < want_y.size(); ++i) want_y[i] += wide_dy[i];
    EXPECT_LE(RelativeError(ToFloats(FromDevice(sum)), want_y), tolerance);
    MatMul({.m = rows,
            .n = inputs,
            .k = outputs,
            .a = wide_dy.data(),
            .a_stride = outputs,
            .b = wide_w.data(),
            .b_stride = inputs,
            .c = want_dx.data(),
            .c_stride = inputs},
           pool);
    EXPECT_LE(RelativeError(ToFloats(FromDevice(dx)), want_dx), tolerance);
    MatMulParams weight = {.m = outputs,
                           .n = inputs,
                           .k = rows,
                           .a = wide_dy.data(),
                           .a_stride = outputs,
                           .a_transposed = true,
                           .b = wide_x.data(),
                           .b_stride = inputs,
                           .c = want_once.data(),
                           .c_stride = inputs};
    MatMul(weight, pool);
    weight.accumulate = true;
    weight.c = want_dw.data();
    MatMul(weight, pool);
    EXPECT_LE(RelativeError(FromDevice(once), want_once), 3e-6) << "fp32 sums of products";
    EXPECT_LE(RelativeError(FromDevice(dw), want_dw), 3e-6) << "fp32 sums of products";
  }

  std::unique_ptr<CudaTrainProducts> products_;
};

// What the sanitizers run.
TEST_F(TrainProductsTest, AFewSmallShapes) {
  CompareWithCpu<float>(21, 72, 264);
  CompareWithCpu<BFloat16>(21, 72, 264);
}

TEST_F(TrainProductsTest, MatchTheCpu) {
  for (const int64_t rows : {1, 21, 128, 700}) {
    CompareWithCpu<float>(rows, 192, 64);
    CompareWithCpu<BFloat16>(rows, 192, 64);
    CompareWithCpu<float>(rows, 72, 264);
    CompareWithCpu<BFloat16>(rows, 72, 264);
  }
  CompareWithCpu<float>(64, 37, 64);  // a vocabulary that is not padded
  CompareWithCpu<BFloat16>(64, 1001, 64);
  CompareWithCpu<BFloat16>(300, 3072, 768);
}

TEST_F(TrainProductsTest, GiveTheSameBitsInAnotherObject) {
  constexpr int64_t kRows = 2048, kWidth = 2048;
  const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, kRows, kWidth, kWidth};
  const auto x = OnDevice(Convert<BFloat16>(RandomFloats(kRows * kWidth, 1))),
             dy = OnDevice(Convert<BFloat16>(RandomFloats(kRows * kWidth, 2)));
  std::vector<float> results[2];
  for (std::vector<float>& result : results) {
    auto products = CudaTrainProducts::Create();
    ASSERT_TRUE(products.ok());
    const auto dw = OnDevice(std::vector<float>(kWidth * kWidth));
    const absl::Status run =
        (*products)->Weight(shape, dy.data(), x.data(), dw.data(), false, stream_);
    ASSERT_TRUE(run.ok()) << run;
    result = FromDevice(dw);
  }
  EXPECT_EQ(results[0], results[1]);
}

// Every product of a layer with the first algorithm of the heuristic and with the chosen one.
TEST_F(TrainProductsTest, ChosenAlgorithmsGiveTheBitsOfTheFirst) {
  auto first = CudaTrainProducts::Create(/*candidates=*/1);
  ASSERT_TRUE(first.ok()) << first.status();
  for (const auto& [rows, outputs, inputs] :
       {std::array<int64_t, 3>{4096, 3072, 768}, {4096, 768, 3072}, {1088, 2560, 2560}}) {
    SCOPED_TRACE(::testing::Message() << outputs << " outputs, " << inputs << " inputs");
    const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, rows, outputs, inputs};
    const auto x = OnDevice(Convert<BFloat16>(RandomFloats(rows * inputs, 1))),
               w = OnDevice(Convert<BFloat16>(RandomFloats(outputs * inputs, 2))),
               dy = OnDevice(Convert<BFloat16>(RandomFloats(rows * outputs, 3))),
               bias = OnDevice(Convert<BFloat16>(RandomFloats(outputs, 4))),
               up = OnDevice(Convert<BFloat16>(RandomFloats(rows * inputs, 5)));
    std::vector<uint16_t> ys[2], sums[2], dxs[2], dups[2];
    std::vector<float> dws[2];
    for (const int i : {0, 1}) {
      CudaTrainProducts& products = i == 0 ? **first : *products_;
      const auto y = OnDevice(std::vector<uint16_t>(rows * outputs)),
                 sum = OnDevice(std::vector<uint16_t>(rows * outputs)),
                 dx = OnDevice(std::vector<uint16_t>(rows * inputs)),
                 dup = OnDevice(std::vector<uint16_t>(rows * inputs));
      const auto dw = OnDevice(RandomFloats(outputs * inputs, 6));
      const auto run = [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; };
      run(products.Forward(shape, x.data(), w.data(), bias.data(), y.data(), stream_));
      run(products.ForwardSum(shape, x.data(), w.data(), bias.data(), dy.data(), sum.data(),
                              stream_));
      run(products.Input(shape, dy.data(), w.data(), dx.data(), stream_));
      run(products.Weight(shape, dy.data(), x.data(), dw.data(), true, stream_));
      EXPECT_GE(products.last_choice().candidates, 1);
      EXPECT_GE(products.last_choice().equal, i);
      const absl::Status gelu =
          products.InputGelu(shape, dy.data(), w.data(), up.data(), dup.data(), stream_);
      ASSERT_TRUE(gelu.ok() || absl::IsUnimplemented(gelu)) << gelu;
      ys[i] = FromDevice(y);
      sums[i] = FromDevice(sum);
      dxs[i] = FromDevice(dx);
      dups[i] = FromDevice(dup);
      dws[i] = FromDevice(dw);
    }
    EXPECT_EQ(ys[0], ys[1]);
    EXPECT_EQ(sums[0], sums[1]);
    EXPECT_EQ(dxs[0], dxs[1]);
    EXPECT_EQ(dups[0], dups[1]);
    EXPECT_EQ(dws[0], dws[1]);
  }
}

// Zeros would make every order of a sum look alike: the choice must not see the operands.
TEST_F(TrainProductsTest, TheChoiceDoesNotDependOnTheOperandsThatCameFirst) {
  constexpr int64_t kRows = 2048, kWidth = 2048;
  const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, kRows, kWidth, kWidth};
  const auto x = OnDevice(Convert<BFloat16>(RandomFloats(kRows * kWidth, 1))),
             dy = OnDevice(Convert<BFloat16>(RandomFloats(kRows * kWidth, 2))),
             zeros = OnDevice(std::vector<BFloat16>(kRows * kWidth));
  auto first = CudaTrainProducts::Create(/*candidates=*/1);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto want = OnDevice(std::vector<float>(kWidth * kWidth)), got = OnDevice(FromDevice(want));
  const auto run = [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; };
  run((*first)->Weight(shape, dy.data(), x.data(), want.data(), false, stream_));
  run(products_->Weight(shape, zeros.data(), zeros.data(), got.data(), false, stream_));
  EXPECT_EQ(FromDevice(got), std::vector<float>(kWidth * kWidth));
  run(products_->Weight(shape, dy.data(), x.data(), got.data(), false, stream_));
  EXPECT_EQ(FromDevice(got), FromDevice(want));
}

TEST_F(TrainProductsTest, GeluOfTheEpilogueIsTheTanhForm) {
  constexpr int64_t kRows = 512, kOutputs = 256, kInputs = 1024;
  const CudaTrainProducts::Shape shape = {ComputeType::kBFloat16, kRows, kOutputs, kInputs};
  // Sums of about 1, where GELU bends.
  std::vector<float> weights = RandomFloats(kOutputs * kInputs, 1);
  for (float& weight : weights) weight *= 0.1f;
  const auto dy = OnDevice(Convert<BFloat16>(RandomFloats(kRows * kOutputs, 2))),
             w = OnDevice(Convert<BFloat16>(weights));
  std::vector<float> wide_up = RandomFloats(kRows * kInputs, 3);
  for (float& value : wide_up) value *= 3;
  const auto up = Convert<BFloat16>(wide_up);
  const auto d_up = OnDevice(up), dx = OnDevice(std::vector<BFloat16>(up.size())),
             plain = OnDevice(std::vector<BFloat16>(up.size()));
  const auto run = [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; };
  run(products_->Input(shape, dy.data(), w.data(), plain.data(), stream_));
  run(products_->InputGelu(shape, dy.data(), w.data(), d_up.data(), dx.data(), stream_));
  const std::vector<float> u = ToFloats(up);
  std::vector<float> want = ToFloats(FromDevice(plain));
  for (size_t i = 0; i < want.size(); ++i) {
    constexpr double kScale = 0.7978845608028654, kCube = 0.044715;
    const double x = u[i], t = std::tanh(kScale * (x + kCube * x * x * x));
    want[i] *= static_cast<float>(0.5 * (1 + t) +
                                  0.5 * x * (1 - t * t) * kScale * (1 + 3 * kCube * x * x));
  }
  EXPECT_LE(RelativeError(ToFloats(FromDevice(dx)), want), 4e-3);
}

TEST_F(TrainProductsTest, RefuseEmptyShapes) {
  EXPECT_EQ(
      products_->Input({ComputeType::kFloat32, 0, 8, 8}, nullptr, nullptr, nullptr, stream_).code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanlin
