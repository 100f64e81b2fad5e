// The plan's laws on the host; the kernel against a double-precision loop over edge shapes.
#include "kernels/gemv/cuda/gemv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "common/cuda/testing.h"
#include "kernels/base/cuda/linear_epilogue_testing.h"

namespace hanlin {
namespace {

constexpr size_t kSharedH100 = 232448;
constexpr int kMultiprocessorsH100 = 132;

TEST(GemvPlanTest, FamilyShapesFitWithLongRings) {
  for (int64_t width : {768, 1024, 2048, 2560, 5120, 7168}) {
    for (int64_t k : {width, 4 * width}) {
      for (int64_t n : {width, 3 * width, 4 * width, int64_t{51200}}) {
        const auto plan = PlanGemv(n, k, 1, kMultiprocessorsH100, kSharedH100);
        ASSERT_TRUE(plan.ok()) << n << " x " << k << ": " << plan.status();
        EXPECT_EQ(plan->chunk % 8, 0);
        EXPECT_LE(plan->chunk, 2560);
        EXPECT_GE(plan->chunk, std::min<int64_t>(k, 1024)) << n << " x " << k;
        EXPECT_LE(plan->shared_bytes, kSharedH100);
        EXPECT_LE(plan->blocks, kMultiprocessorsH100);
      }
    }
  }
}

TEST(GemvPlanTest, FewRowsUseFewBlocks) {
  EXPECT_EQ(PlanGemv(3, 64, 1, kMultiprocessorsH100, kSharedH100)->blocks, 3);
}

TEST(GemvPlanTest, ALargerBatchGetsShorterRings) {
  const auto one = PlanGemv(5120, 20480, 1, kMultiprocessorsH100, kSharedH100);
  const auto four = PlanGemv(5120, 20480, 4, kMultiprocessorsH100, kSharedH100);
  ASSERT_TRUE(one.ok() && four.ok()) << four.status();
  EXPECT_LT(four->chunk, one->chunk);
}

TEST(GemvPlanTest, RefusesWhatTheKernelDoesNotDo) {
  const auto plan = [](int64_t n, int64_t k, int batch, size_t shared) {
    return PlanGemv(n, k, batch, kMultiprocessorsH100, shared).status().code();
  };
  EXPECT_EQ(plan(8, 12, 1, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(8, 0, 1, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(0, 8, 1, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(8, 8, 5, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(8, 8, 0, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(8, 131072, 1, kSharedH100), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan(8, 8, 1, 1024), absl::StatusCode::kInvalidArgument);
}

TEST(GemvTest, RefusesBadParametersBeforeAnyLaunch) {
  const GemvPlan plan = *PlanGemv(8, 8, 1, 1, kSharedH100);
  EXPECT_EQ(Gemv({.n = 8, .k = 8}, plan, nullptr).code(), absl::StatusCode::kInvalidArgument);
  alignas(16) char memory[64] = {};
  GemvParams params{
      .n = 8, .k = 8, .weight = reinterpret_cast<BFloat16*>(memory + 2), .x = memory, .y = memory};
  EXPECT_EQ(Gemv(params, plan, nullptr).code(), absl::StatusCode::kInvalidArgument) << "alignment";
  params.weight = reinterpret_cast<BFloat16*>(memory);
  params.input = GemvInput::kLayerNorm;
  EXPECT_EQ(Gemv(params, plan, nullptr).code(), absl::StatusCode::kInvalidArgument) << "no norm";
}

struct Shape {
  int64_t n;
  int64_t k;
  int batch;
};

// The inputs of one product, and what it should give.
struct Problem {
  Problem(Shape shape, GemvInput input, uint32_t seed) : shape(shape), input(input), random(seed) {
    for (int64_t i = 0; i < shape.n * shape.k; ++i) weight.push_back(ToBFloat16(Uniform()));
    for (int64_t i = 0; i < shape.batch * shape.k; ++i) {
      x.push_back(3.0f + Uniform());  // a mean that a careless variance would lose
      x_bf16.push_back(ToBFloat16(x.back()));
    }
    for (int64_t i = 0; i < shape.k; ++i) {
      norm_weight.push_back(1.0f + Uniform());
      norm_bias.push_back(Uniform());
    }
    for (int64_t i = 0; i < shape.n; ++i) bias.push_back(Uniform());
    for (int64_t i = 0; i < shape.n * shape.batch; ++i) y.push_back(Uniform());
  }

  float Uniform() { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random); }

  std::vector<double> InputRow(int b) const {
    std::vector<double> row(shape.k);
    double mean = 0.0, variance = 0.0;
    for (int64_t i = 0; i < shape.k; ++i) mean += x[b * shape.k + i] / static_cast<double>(shape.k);
    for (int64_t i = 0; i < shape.k; ++i) {
      variance += std::pow(x[b * shape.k + i] - mean, 2) / static_cast<double>(shape.k);
    }
    for (int64_t i = 0; i < shape.k; ++i) {
      const double normed = (x[b * shape.k + i] - mean) / std::sqrt(variance + 1e-5);
      row[i] = input == GemvInput::kLayerNorm
                   ? ToFloat(ToBFloat16(static_cast<float>(normed * norm_weight[i] + norm_bias[i])))
                   : ToFloat(x_bf16[b * shape.k + i]);
    }
    return row;
  }

  // Also the sum of absolute products, which rounding errors are proportional to.
  void Expect(int64_t n, const std::vector<double>& row, bool has_bias, double* r,
              double* magnitude) const {
    *r = has_bias ? bias[n] : 0.0;
    *magnitude = std::abs(*r);
    for (int64_t i = 0; i < shape.k; ++i) {
      const double product = row[i] * double(ToFloat(weight[n * shape.k + i]));
      *r += product;
      *magnitude += std::abs(product);
    }
  }

  Shape shape;
  GemvInput input;
  std::mt19937 random;
  std::vector<BFloat16> weight, x_bf16;
  std::vector<float> x, norm_weight, norm_bias, bias, y;
};

bool StoresFloat(LinearEpilogue epilogue) {
  return epilogue == LinearEpilogue::kResidual || epilogue == LinearEpilogue::kFloat32;
}

class GemvGpuTest : public HopperTest {
 protected:
  // Runs the kernel on a guarded output and returns it as floats.
  std::vector<float> Run(const Problem& problem, LinearEpilogue epilogue, bool has_bias) {
    const Shape& shape = problem.shape;
    const auto weight = OnDevice(problem.weight);
    const auto x = OnDevice(problem.x);
    const auto x_bf16 = OnDevice(problem.x_bf16);
    const auto norm_weight = OnDevice(problem.norm_weight);
    const auto norm_bias = OnDevice(problem.norm_bias);
    const auto bias = OnDevice(problem.bias);
    const auto y = OnDevice(problem.y);  // as large as either type needs
    const auto plan = PlanGemv(shape.n, shape.k, shape.batch, device_.multiprocessors,
                               device_.shared_memory_per_block);
    EXPECT_TRUE(plan.ok()) << plan.status();
    const bool norms = problem.input == GemvInput::kLayerNorm;
    const GemvParams params{.n = shape.n,
                            .k = shape.k,
                            .batch = shape.batch,
                            .weight = weight.data(),
                            .input = problem.input,
                            .x = norms ? static_cast<const void*>(x.data()) : x_bf16.data(),
                            .norm_weight = norm_weight.data(),
                            .norm_bias = norm_bias.data(),
                            .bias = has_bias ? bias.data() : nullptr,
                            .epilogue = epilogue,
                            .y = y.data()};
    const absl::Status launched = Gemv(params, *plan, stream_.get());
    EXPECT_TRUE(launched.ok()) << launched;
    std::vector<float> result = FromDevice(y);
    if (!StoresFloat(epilogue)) {
      std::vector<BFloat16> halves(result.size());
      std::memcpy(halves.data(), result.data(), halves.size() * sizeof(BFloat16));
      for (size_t i = 0; i < result.size(); ++i) result[i] = ToFloat(halves[i]);
    }
    return result;
  }

  void Check(Shape shape, GemvInput input, LinearEpilogue epilogue, bool has_bias) {
    SCOPED_TRACE(::testing::Message()
                 << "n " << shape.n << " k " << shape.k << " batch " << shape.batch << " input "
                 << int(input) << " epilogue " << int(epilogue));
    const Problem problem(shape, input, 17);
    const std::vector<float> result = Run(problem, epilogue, has_bias);
    int wrong = 0;
    for (int b = 0; b < shape.batch; ++b) {
      const std::vector<double> row = problem.InputRow(b);
      for (int64_t n = 0; n < shape.n; ++n) {
        double r, magnitude;
        problem.Expect(n, row, has_bias, &r, &magnitude);
        const size_t at = b * shape.n + n;
        const double want = ApplyEpilogue(epilogue, r, problem.y[at]);
        // fp32 sums in a tree; a normalised input may round to the other bf16 neighbour (2^-9).
        double tolerance = 1e-6 * magnitude + 1e-6;
        if (input == GemvInput::kLayerNorm) tolerance += 0x1p-9 * magnitude / std::sqrt(shape.k);
        if (!StoresFloat(epilogue)) tolerance += 0x1p-8 * std::abs(want);
        wrong += !(std::abs(result[at] - want) <= tolerance);
      }
    }
    EXPECT_EQ(wrong, 0) << "outputs out of tolerance";
  }
};

// What the sanitizers run. The rings of two blocks go round.
TEST_F(GemvGpuTest, AFewSmallShapes) {
  device_.multiprocessors = 2;
  device_.shared_memory_per_block = 48 * 1024;
  for (int batch : {1, 2, 3, 4}) {
    Check({131, 520, batch}, GemvInput::kLayerNorm, LinearEpilogue::kGeluTanh, true);
    Check({131, 520, batch}, GemvInput::kBFloat16, LinearEpilogue::kResidual, true);
  }
}

TEST_F(GemvGpuTest, EveryEpilogueAndPrologueMatchesTheReference) {
  for (GemvInput input : {GemvInput::kBFloat16, GemvInput::kLayerNorm}) {
    for (LinearEpilogue epilogue :
         {LinearEpilogue::kNone, LinearEpilogue::kGeluTanh, LinearEpilogue::kGeluErf,
          LinearEpilogue::kResidual, LinearEpilogue::kFloat32}) {
      Check({200, 264, 2}, input, epilogue, true);
      Check({200, 264, 1}, input, epilogue, false);
    }
  }
}

TEST_F(GemvGpuTest, EdgeShapesAndBatchesMatchTheReference) {
  for (int batch : {1, 2, 3, 4}) {
    for (GemvInput input : {GemvInput::kBFloat16, GemvInput::kLayerNorm}) {
      Check({1, 8, batch}, input, LinearEpilogue::kFloat32, true);        // less than anything
      Check({133, 2568, batch}, input, LinearEpilogue::kResidual, true);  // k beside the chunk
      Check({131, 6152, batch}, input, LinearEpilogue::kNone, true);      // norm beyond registers
      Check({7001, 768, batch}, input, LinearEpilogue::kFloat32, false);  // rings go round
      Check({640, 2560, batch}, input, LinearEpilogue::kGeluTanh, true);
    }
  }
  Check({5, 20480, 4}, GemvInput::kBFloat16, LinearEpilogue::kResidual, true);
  Check({90000, 16, 4}, GemvInput::kBFloat16, LinearEpilogue::kResidual,
        true);  // many late outputs
}

TEST_F(GemvGpuTest, TheSameCallGivesTheSameBits) {
  const Problem problem({1000, 2560, 1}, GemvInput::kLayerNorm, 5);
  EXPECT_EQ(Run(problem, LinearEpilogue::kFloat32, true),
            Run(problem, LinearEpilogue::kFloat32, true));
}

TEST_F(GemvGpuTest, AChainOfLaunchesWaitsForItsInputs) {
  // y += x W^T, forty times through the same residual: any launch that ran ahead would lose a term.
  const Shape shape{2560, 256, 1};
  const Problem problem(shape, GemvInput::kBFloat16, 9);
  const auto weight = OnDevice(problem.weight);
  const auto x = OnDevice(problem.x_bf16);
  const auto y = OnDevice(std::vector<float>(shape.n));
  const GemvPlan plan =
      *PlanGemv(shape.n, shape.k, 1, device_.multiprocessors, device_.shared_memory_per_block);
  const GemvParams params{.n = shape.n,
                          .k = shape.k,
                          .weight = weight.data(),
                          .x = x.data(),
                          .epilogue = LinearEpilogue::kResidual,
                          .y = y.data()};
  const auto graph = CudaGraph::Capture(stream_, [&]() -> absl::Status {
    for (int i = 0; i < 40; ++i) RETURN_IF_ERROR(Gemv(params, plan, stream_.get()));
    return absl::OkStatus();
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  ASSERT_TRUE(graph->Launch(stream_).ok());
  const std::vector<float> result = FromDevice(y);
  const std::vector<double> row = problem.InputRow(0);
  for (int64_t n = 0; n < shape.n; ++n) {
    double r, magnitude;
    problem.Expect(n, row, false, &r, &magnitude);
    ASSERT_NEAR(result[n], 40 * r, 40 * (1e-6 * magnitude + 1e-5)) << n;
  }
}

}  // namespace
}  // namespace hanlin
