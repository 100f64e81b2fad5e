// What the tests of products share: inputs, a run of a product on the device, a check against a
// double-precision loop.
#ifndef HANLIN_KERNELS_GEMM_CUDA_GEMM_TESTING_H_
#define HANLIN_KERNELS_GEMM_CUDA_GEMM_TESTING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/cuda/linear_epilogue_testing.h"
#include "kernels/gemm/cuda/cublas_lt.h"
#include "kernels/gemm/cuda/gemm_params.h"

namespace hanlin {

inline constexpr LinearEpilogue kEpilogues[] = {LinearEpilogue::kNone, LinearEpilogue::kGeluTanh,
                                                LinearEpilogue::kGeluErf, LinearEpilogue::kResidual,
                                                LinearEpilogue::kFloat32};

// The inputs of one product.
struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, ComputeType type) : m(m), n(n), k(k), type(type) {
    std::mt19937 random(17);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    const auto fill = [&](std::vector<float>& values, int64_t count, bool round) {
      for (int64_t i = 0; i < count; ++i) {
        const float value = uniform(random);
        values.push_back(round ? ToFloat(ToBFloat16(value)) : value);
      }
    };
    const bool round = type == ComputeType::kBFloat16;
    fill(x, m * k, round);
    fill(weight, n * k, round);
    fill(bias, n, true);
    fill(y, m * n, false);
  }

  int64_t m, n, k;
  ComputeType type;
  std::vector<float> x, weight, bias, y;
};

inline std::vector<BFloat16> Rounded(const std::vector<float>& values) {
  std::vector<BFloat16> result;
  result.reserve(values.size());
  for (float value : values) result.push_back(ToBFloat16(value));
  return result;
}

class GemmGpuTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto cublas_lt = CublasLt::Create({});
    ASSERT_TRUE(cublas_lt.ok()) << cublas_lt.status();
    cublas_lt_ = *std::move(cublas_lt);
  }

  // The outputs as floats. `product` puts the product into the stream.
  template <typename Product>
  std::vector<float> Run(const Problem& p, LinearEpilogue epilogue, bool has_bias,
                         const Product& product) {
    const bool floats = p.type == ComputeType::kFloat32;
    const auto x = OnDevice(p.x), weight = OnDevice(p.weight), bias = OnDevice(p.bias);
    const auto x_bf16 = OnDevice(Rounded(p.x)), weight_bf16 = OnDevice(Rounded(p.weight)),
               bias_bf16 = OnDevice(Rounded(p.bias));
    const auto y = OnDevice(p.y);
    const GemmParams params{
        .m = p.m,
        .n = p.n,
        .k = p.k,
        .type = p.type,
        .weight = floats ? static_cast<const void*>(weight.data()) : weight_bf16.data(),
        .x = floats ? static_cast<const void*>(x.data()) : x_bf16.data(),
        .bias = has_bias ? bias.data() : nullptr,
        .bias_bf16 = has_bias ? bias_bf16.data() : nullptr,
        .epilogue = epilogue,
        .y = y.data()};
    const absl::Status launched = product(params);
    EXPECT_TRUE(launched.ok()) << launched;
    std::vector<float> result = FromDevice(y);
    if (!floats && epilogue != LinearEpilogue::kResidual && epilogue != LinearEpilogue::kFloat32) {
      std::vector<BFloat16> halves(result.size());
      std::memcpy(halves.data(), result.data(), halves.size() * sizeof(BFloat16));
      for (size_t i = 0; i < result.size(); ++i) result[i] = ToFloat(halves[i]);
    }
    return result;
  }

  template <typename Product>
  void Check(const Problem& p, LinearEpilogue epilogue, bool has_bias, const Product& product) {
    SCOPED_TRACE(::testing::Message() << "m " << p.m << " n " << p.n << " k " << p.k << " type "
                                      << int(p.type) << " epilogue " << int(epilogue));
    const std::vector<float> result = Run(p, epilogue, has_bias, product);
    const bool rounds = p.type == ComputeType::kBFloat16 && epilogue != LinearEpilogue::kResidual &&
                        epilogue != LinearEpilogue::kFloat32;
    int wrong = 0;
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        const double bias = has_bias ? p.bias[j] : 0.0;
        double r = bias, magnitude = std::abs(r);
        for (int64_t l = 0; l < p.k; ++l) {
          const double term = static_cast<double>(p.x[i * p.k + l]) * p.weight[j * p.k + l];
          r += term;
          magnitude += std::abs(term);
        }
        const double want = ApplyEpilogue(epilogue, r, p.y[i * p.n + j]);
        // Sums in fp32. cublasLt may round the product to bf16 before the bias, and its r before
        // erf.
        double tolerance = 4e-6 * magnitude + 1e-6;
        if (rounds) tolerance += 0x1p-7 * (std::abs(r - bias) + std::abs(bias) + std::abs(want));
        if (std::abs(result[i * p.n + j] - want) <= tolerance) continue;
        if (++wrong <= 3) {
          ADD_FAILURE() << "y[" << i << "][" << j << "] is " << result[i * p.n + j] << ", want "
                        << want << " within " << tolerance;
        }
      }
    }
    EXPECT_EQ(wrong, 0) << "outputs out of tolerance";
  }

  // h = x W^T, then y += h W^T, over and over in a graph with the same buffers: a launch that ran
  // ahead of its inputs would lose a term.
  template <typename First, typename Second>
  void CheckChain(int64_t m, const First& first, const Second& second) {
    constexpr int64_t kWidth = 1024;
    const Problem p(m, kWidth, kWidth, ComputeType::kBFloat16);
    std::vector<float> small = p.weight;
    for (float& value : small) value /= 32;
    const auto weight = OnDevice(Rounded(small));
    const auto x = OnDevice(Rounded(p.x));
    const auto h = OnDevice(std::vector<BFloat16>(m * kWidth));
    const auto y = OnDevice(std::vector<float>(m * kWidth));
    const GemmParams to_h = {
        .m = m, .n = kWidth, .k = kWidth, .weight = weight.data(), .x = x.data(), .y = h.data()};
    GemmParams to_y = to_h;
    to_y.x = h.data();
    to_y.epilogue = LinearEpilogue::kResidual;
    to_y.y = y.data();
    const auto twice = [&]() -> absl::Status {
      RETURN_IF_ERROR(first(to_h));
      return second(to_y);
    };
    ASSERT_TRUE(twice().ok());
    const std::vector<float> once = FromDevice(y);
    const auto graph = CudaGraph::Capture(stream_, [&]() -> absl::Status {
      for (int i = 0; i < 31; ++i) RETURN_IF_ERROR(twice());
      return absl::OkStatus();
    });
    ASSERT_TRUE(graph.ok()) << graph.status();
    ASSERT_TRUE(graph->Launch(stream_).ok());
    const std::vector<float> result = FromDevice(y);
    for (size_t i = 0; i < result.size(); ++i) {
      ASSERT_NEAR(result[i], 32 * once[i], 1e-4 * (1 + std::abs(result[i]))) << i;
    }
  }

  std::unique_ptr<CublasLt> cublas_lt_;
};

// For kernels that Hopper alone runs.
class HopperGemmTest : public GemmGpuTest {
 protected:
  void SetUp() override {
    GemmGpuTest::SetUp();
    if (!IsSkipped() && !device_.hopper) GTEST_SKIP() << "not for the plain path";
  }
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_GEMM_TESTING_H_
