// The medium product's choices on the host, and its kernel against a double-precision loop over
// edge shapes.
#include "kernels/gemm/cuda/medium.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/gemm/cuda/gemm_testing.h"

namespace hanlin {
namespace {

constexpr int kMultiprocessorsH100 = 132;

// Bytes of sums that take the ring's place.
int SumBytes(const MediumPlan& plan) {
  return MediumOwnBytes(plan.columns) + MediumSentBytes(plan.columns, plan.split);
}

TEST(MediumPlanTest, FamilyShapesFillTheDevice) {
  for (int64_t width : {1024, 2048, 2560, 5120, 7168, 12288}) {
    for (auto [n, k] : {std::pair{3 * width, width},
                        {width, width},
                        {4 * width, width},
                        {width, 4 * width},
                        {int64_t{51200}, width}}) {
      const auto plan = PlanMedium(n, k, kMultiprocessorsH100);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const int64_t blocks = (n + plan->columns - 1) / plan->columns * plan->split;
      EXPECT_GE(blocks, 84) << n << " x " << k;
    }
  }
}

TEST(MediumPlanTest, EverythingFitsInSharedMemory) {
  for (int64_t n = 2; n < 60000; n = n * 5 / 4 / 2 * 2 + 2) {
    for (int64_t k : {8, 64, 768, 2560, 20480}) {
      const auto plan = PlanMedium(n, k, kMultiprocessorsH100);
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ(plan->stages, MediumStages(plan->columns));
      EXPECT_LE(plan->split, (k + 63) / 64) << "every block of a cluster has inputs";
      const int ring = plan->stages * MediumStageBytes(plan->columns);
      EXPECT_LE(ring + 2048, 232448);
      EXPECT_GE(ring, SumBytes(*plan)) << n << " x " << k;
    }
  }
}

TEST(MediumPlanTest, RefusesWhatTheKernelDoesNotDo) {
  EXPECT_FALSE(PlanMedium(0, 64, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanMedium(63, 64, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanMedium(64, 12, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanMedium(64, 64, 0).ok());
}

using MediumGpuTest = HopperGemmTest;

// What the sanitizers run; the ring goes round.
TEST_F(MediumGpuTest, AFewSmallShapes) {
  for (int split : {1, 2}) {
    const MediumPlan plan = {.columns = 64, .split = split, .stages = 4};
    for (LinearEpilogue epilogue : {LinearEpilogue::kGeluTanh, LinearEpilogue::kResidual}) {
      Check(Problem(67, 72, 776, ComputeType::kBFloat16), epilogue, true,
            [&](const GemmParams& p) { return MediumGemm(p, plan, stream_.get()); });
    }
  }
}

TEST_F(MediumGpuTest, DoesEveryEpilogue) {
  for (int split : {1, 2}) {
    const MediumPlan plan = {.columns = 80, .split = split, .stages = 6};
    for (LinearEpilogue epilogue : kEpilogues) {
      for (bool has_bias : {false, true}) {
        Check(Problem(100, 200, 264, ComputeType::kBFloat16), epilogue, has_bias,
              [&](const GemmParams& p) { return MediumGemm(p, plan, stream_.get()); });
      }
      Check(Problem(67, 130, 520, ComputeType::kBFloat16), epilogue, true,
            [&](const GemmParams& p) { return MediumGemm(p, plan, stream_.get()); });
    }
  }
}

TEST_F(MediumGpuTest, DoesEdgeShapes) {
  for (int64_t m : {1, 63, 64, 65, 100, 127, 128}) {
    for (auto [n, k] : {std::pair{2, 8}, {64, 64}, {134, 72}, {256, 1288}, {130, 4096}}) {
      for (int split : {1, 2, 4}) {
        const MediumPlan plan = {.columns = 64, .split = split, .stages = 4};  // goes round
        Check(Problem(m, n, k, ComputeType::kBFloat16), LinearEpilogue::kResidual, true,
              [&](const GemmParams& p) { return MediumGemm(p, plan, stream_.get()); });
      }
    }
  }
}

TEST_F(MediumGpuTest, DoesEveryWidthOfTile) {
  const Problem problem(120, 200, 776, ComputeType::kBFloat16);
  for (int columns : kMediumColumns) {
    for (int split : {1, 3, 4, 8}) {
      const MediumPlan plan = {.columns = columns, .split = split, .stages = MediumStages(columns)};
      if (SumBytes(plan) > plan.stages * MediumStageBytes(columns)) continue;
      Check(problem, LinearEpilogue::kNone, true,
            [&](const GemmParams& p) { return MediumGemm(p, plan, stream_.get()); });
    }
  }
}

TEST_F(MediumGpuTest, LaunchesInAChainWaitForTheirInputs) {
  const MediumPlan whole = {.columns = 32, .split = 1, .stages = MediumStages(32)};
  const MediumPlan divided = {.columns = 64, .split = 4, .stages = MediumStages(64)};
  CheckChain(
      72, [&](const GemmParams& p) { return MediumGemm(p, whole, stream_.get()); },
      [&](const GemmParams& p) { return MediumGemm(p, divided, stream_.get()); });
}

TEST_F(MediumGpuTest, RowsDoNotDependOnTheBatch) {
  const Problem all(128, 768, 3072, ComputeType::kBFloat16);
  const auto medium = [&](const GemmParams& p) -> absl::Status {
    ASSIGN_OR_RETURN(const MediumPlan plan, PlanMedium(p.n, p.k, device_.multiprocessors));
    return MediumGemm(p, plan, stream_.get());
  };
  const std::vector<float> expected = Run(all, LinearEpilogue::kFloat32, true, medium);
  for (int64_t m : {65, 128}) {
    Problem few = all;
    few.m = m;
    few.x.resize(m * few.k);
    few.y.resize(m * few.n);
    const std::vector<float> result = Run(few, LinearEpilogue::kFloat32, true, medium);
    EXPECT_TRUE(std::equal(result.begin(), result.end(), expected.begin())) << m;
  }
}

TEST(MediumGemmTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) char memory[64] = {};
  const MediumPlan plan = *PlanMedium(8, 8, 132);
  const GemmParams good{.m = 1, .n = 8, .k = 8, .weight = memory, .x = memory, .y = memory};
  const auto refuses = [&](const GemmParams& params, const MediumPlan& plan) {
    return MediumGemm(params, plan, nullptr).code() == absl::StatusCode::kInvalidArgument;
  };
  GemmParams params = good;
  params.weight = memory + 2;
  EXPECT_TRUE(refuses(params, plan));
  params = good;
  params.y = nullptr;
  EXPECT_TRUE(refuses(params, plan));
  params = good;
  params.m = 129;
  EXPECT_TRUE(refuses(params, plan));
  params = good;
  params.n = 7;
  EXPECT_TRUE(refuses(params, plan));
  EXPECT_TRUE(refuses(good, {.columns = 128, .split = 5, .stages = MediumStages(128)}));
  EXPECT_TRUE(refuses(good, {.columns = 64, .split = 9, .stages = MediumStages(64)}));
  EXPECT_TRUE(refuses(good, {.columns = 64, .split = 1, .stages = 3}));
}

}  // namespace
}  // namespace hanlin
