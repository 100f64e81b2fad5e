// The products of training on the GPU against those of the CPU, in both types, at shapes on and off
// the alignment that tensor cores want.
#include "kernels/gemm/cuda/train_products.h"

#include <gtest/gtest.h>

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
  constexpr int64_t kRows = 2048, kWidth = 768;
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

TEST_F(TrainProductsTest, RefuseEmptyShapes) {
  EXPECT_EQ(
      products_->Input({ComputeType::kFloat32, 0, 8, 8}, nullptr, nullptr, nullptr, stream_).code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanlin
