// The choices on the host; the skinny product, cublasLt and the dispatch against a double-precision
// loop over edge shapes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/gemm/cuda/gemm_testing.h"
#include "kernels/gemm/cuda/linear.h"
#include "kernels/gemm/cuda/skinny.h"

namespace hanlin {
namespace {

constexpr int kMultiprocessorsH100 = 132;

TEST(SkinnyPlanTest, FamilyShapesFillTheDevice) {
  for (int64_t width : {768, 2048, 2560, 5120, 7168}) {
    for (int64_t k : {width, 4 * width}) {
      for (int64_t n : {width, 3 * width, 4 * width}) {
        const auto plan = PlanSkinny(32, n, k, kMultiprocessorsH100);
        ASSERT_TRUE(plan.ok()) << plan.status();
        const int64_t blocks = (n + plan->rows - 1) / plan->rows * plan->split;
        EXPECT_GE(blocks, 90) << n << " x " << k;
      }
    }
  }
}

TEST(SkinnyPlanTest, TheSplitDoesNotDependOnTheBatch) {
  for (int64_t n : {1, 64, 768, 2560, 7680, 51200}) {
    for (int64_t k : {8, 64, 768, 2560, 20480}) {
      const int split = PlanSkinny(1, n, k, kMultiprocessorsH100)->split;
      EXPECT_LE(split, (k + 63) / 64) << "every block of a cluster has inputs";
      for (int64_t m : {7, 33, 128, 5000}) {
        EXPECT_EQ(PlanSkinny(m, n, k, kMultiprocessorsH100)->split, split) << n << " x " << k;
      }
    }
  }
}

TEST(SkinnyPlanTest, EverythingFitsInSharedMemory) {
  for (int64_t m : {1, 9, 17, 33, 65, 200}) {
    for (int64_t n = 1; n < 60000; n = n * 5 / 4 + 1) {
      const auto plan = PlanSkinny(m, n, 2560, kMultiprocessorsH100);
      ASSERT_TRUE(plan.ok());
      EXPECT_GE(plan->columns, std::min<int64_t>(m, 128));
      EXPECT_GE(plan->stages, 2 * SkinnyWays(plan->rows));
      EXPECT_EQ(plan->stages % SkinnyWays(plan->rows), 0);
      EXPECT_LE(plan->stages, kSkinnyMaxStages);
      const int ring = SkinnyRingBytes(plan->rows, plan->columns, plan->stages);
      EXPECT_LE(ring + SkinnySlackBytes(plan->rows, plan->columns) + 2048, 232448);
      EXPECT_GE(ring, SkinnySumBytes(plan->rows, plan->columns));
    }
  }
}

TEST(SkinnyPlanTest, RefusesWhatTheKernelDoesNotDo) {
  EXPECT_FALSE(PlanSkinny(1, 0, 64, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanSkinny(0, 64, 64, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanSkinny(1, 64, 12, kMultiprocessorsH100).ok());
  EXPECT_FALSE(PlanSkinny(1, 64, 64, 0).ok());
}

TEST(CheckBatchInvarianceTest, OnlyHopperHasTheMode) {
  CudaDevice device{.name = "A100", .major = 8, .minor = 6};
  EXPECT_TRUE(CheckBatchInvariance(device, false).ok());
  const absl::Status refused = CheckBatchInvariance(device, true);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  for (const char* part : {"A100", "8.6", "9.0"}) {
    EXPECT_NE(Message(refused).find(part), std::string::npos) << refused;
  }
  device.hopper = true;
  EXPECT_TRUE(CheckBatchInvariance(device, true).ok());
}

TEST(SelectLinearPathTest, FollowsBatchTypeAndMode) {
  const auto bf16 = ComputeType::kBFloat16;
  EXPECT_EQ(SelectLinearPath(1, 7680, 2560, bf16, false), LinearPath::kGemv);
  EXPECT_EQ(SelectLinearPath(2, 5120, 20480, bf16, false), LinearPath::kGemv);
  EXPECT_EQ(SelectLinearPath(4, 2304, 768, bf16, false), LinearPath::kGemv);
  EXPECT_EQ(SelectLinearPath(1, 64, 131072, bf16, false), LinearPath::kSkinny) << "k too wide";
  EXPECT_EQ(SelectLinearPath(3, 7680, 2560, bf16, false), LinearPath::kSkinny);
  EXPECT_EQ(SelectLinearPath(5, 2304, 768, bf16, false), LinearPath::kSkinny);
  EXPECT_EQ(SelectLinearPath(64, 7680, 2560, bf16, false), LinearPath::kSkinny);
  EXPECT_EQ(SelectLinearPath(65, 7680, 2560, bf16, false), LinearPath::kMedium);
  EXPECT_EQ(SelectLinearPath(128, 2560, 10240, bf16, false), LinearPath::kMedium);
  EXPECT_EQ(SelectLinearPath(128, 51200, 2560, bf16, false), LinearPath::kCublasLt);
  EXPECT_EQ(SelectLinearPath(129, 7680, 2560, bf16, false), LinearPath::kCublasLt);
  EXPECT_EQ(SelectLinearPath(65, 7681, 2560, bf16, false), LinearPath::kCublasLt) << "odd n";
  EXPECT_EQ(SelectLinearPath(1, 7680, 2564, bf16, false), LinearPath::kCublasLt);
  EXPECT_EQ(SelectLinearPath(1, 7680, 2560, ComputeType::kFloat32, true), LinearPath::kCublasLt);
  for (int64_t m : {1, 64, 4096}) {
    EXPECT_EQ(SelectLinearPath(m, 7680, 2560, bf16, true), LinearPath::kSkinny);
  }
}

TEST(CublasLtBucketTest, CoversEveryRowCountClosely) {
  for (int64_t m = 1; m <= 9000; ++m) {
    const int64_t bucket = CublasLtBucket(m);
    ASSERT_GE(bucket, m);
    ASSERT_LT(bucket, 2 * m);
    ASSERT_EQ(CublasLtBucket(bucket), bucket);
    ASSERT_GE(bucket, CublasLtBucket(std::max<int64_t>(1, m - 1)));
  }
}

class SkinnyGpuTest : public HopperGemmTest {
 protected:
  void CheckPlan(const Problem& problem, LinearEpilogue epilogue, int rows, int split) {
    Check(problem, epilogue, true, [&](const GemmParams& p) -> absl::Status {
      ASSIGN_OR_RETURN(SkinnyPlan plan, PlanSkinny(p.m, p.n, p.k, device_.multiprocessors));
      plan.rows = rows;
      plan.split = split;
      plan.stages = rows <= 64 ? 8 : 6;  // goes round
      return SkinnyGemm(p, plan, stream_.get());
    });
  }

  absl::Status Skinny(const GemmParams& params) {
    ASSIGN_OR_RETURN(const SkinnyPlan plan,
                     PlanSkinny(params.m, params.n, params.k, device_.multiprocessors));
    return SkinnyGemm(params, plan, stream_.get());
  }
};

// What the sanitizers run.
TEST_F(SkinnyGpuTest, AFewSmallShapes) {
  for (int rows : {64, 128}) {
    CheckPlan(Problem(6, 72, 776, ComputeType::kBFloat16), LinearEpilogue::kGeluTanh, rows, 1);
    CheckPlan(Problem(20, 130, 1288, ComputeType::kBFloat16), LinearEpilogue::kResidual, rows, 2);
  }
}

TEST_F(SkinnyGpuTest, DoesEveryEpilogue) {
  const Problem problem(20, 200, 264, ComputeType::kBFloat16);
  const Problem odd(7, 131, 520, ComputeType::kBFloat16);  // rows that start unaligned
  for (LinearEpilogue epilogue : kEpilogues) {
    for (bool has_bias : {false, true}) {
      Check(problem, epilogue, has_bias, [&](const GemmParams& p) { return Skinny(p); });
    }
    Check(odd, epilogue, true, [&](const GemmParams& p) { return Skinny(p); });
  }
}

TEST_F(SkinnyGpuTest, DoesEdgeShapes) {
  for (int64_t m : {1, 5, 8, 9, 16, 31, 33, 64, 100, 128, 129, 300}) {
    for (auto [n, k] : {std::pair{1, 8}, {64, 64}, {130, 72}, {256, 1288}, {129, 4096}}) {
      Check(Problem(m, n, k, ComputeType::kBFloat16), LinearEpilogue::kResidual, true,
            [&](const GemmParams& p) { return Skinny(p); });
    }
  }
  for (int rows : {8, 56, 64, 80, 128}) {
    for (int split : {1, 2, 3, 8}) {
      for (int64_t m : {6, 12, 24, 48, 96}) {
        CheckPlan(Problem(m, 200, 1000, ComputeType::kBFloat16), LinearEpilogue::kNone, rows,
                  split);
      }
    }
  }
}

TEST_F(SkinnyGpuTest, RowsDoNotDependOnTheBatch) {
  const Problem all(200, 768, 3072, ComputeType::kBFloat16);
  const auto skinny = [&](const GemmParams& p) { return Skinny(p); };
  const std::vector<float> expected = Run(all, LinearEpilogue::kFloat32, true, skinny);
  for (int64_t m : {1, 5, 12, 32, 64, 128}) {
    Problem few = all;
    few.m = m;
    few.x.resize(m * few.k);
    few.y.resize(m * few.n);
    const std::vector<float> result = Run(few, LinearEpilogue::kFloat32, true, skinny);
    EXPECT_TRUE(std::equal(result.begin(), result.end(), expected.begin())) << m;
  }
}

TEST_F(SkinnyGpuTest, LaunchesInAChainWaitForTheirInputs) {
  const auto skinny = [&](const GemmParams& p) { return Skinny(p); };
  CheckChain(24, skinny, skinny);
}

TEST_F(GemmGpuTest, CublasLtDoesEveryEpilogueAndType) {
  for (ComputeType type : {ComputeType::kBFloat16, ComputeType::kFloat32}) {
    const Problem problem(200, 136, 264, type);
    for (LinearEpilogue epilogue : kEpilogues) {
      for (bool has_bias : {false, true}) {
        const auto run = [&](const GemmParams& p) { return cublas_lt_->Run(p, stream_); };
        Check(problem, epilogue, has_bias, run);
        Check(problem, epilogue, has_bias, run);  // from the cache
      }
    }
  }
}

TEST_F(GemmGpuTest, CublasLtDoesAnyShape) {
  for (ComputeType type : {ComputeType::kBFloat16, ComputeType::kFloat32}) {
    for (auto [m, n, k] : {std::tuple{1, 1, 8},
                           {3, 131, 40},
                           {129, 77, 24},
                           {1, 4999, 72},
                           {17, 64, 13},
                           {2, 3, 1}}) {
      for (LinearEpilogue epilogue : kEpilogues) {
        Check(Problem(m, n, k, type), epilogue, true,
              [&](const GemmParams& p) { return cublas_lt_->Run(p, stream_); });
      }
    }
  }
}

TEST_F(GemmGpuTest, CublasLtPreparedAlgorithmServesTheBucket) {
  for (int64_t m : {256, 250, 193}) {
    Check(Problem(m, 256, 512, ComputeType::kBFloat16), LinearEpilogue::kGeluTanh, true,
          [&](const GemmParams& p) -> absl::Status {
            if (m == 256) RETURN_IF_ERROR(cublas_lt_->Prepare(p, stream_));
            return cublas_lt_->Run(p, stream_);
          });
  }
}

TEST_F(GemmGpuTest, WithoutHopperEveryProductIsCublasLts) {
  device_.hopper = false;
  auto linear = CudaLinear::Create(device_, {});
  ASSERT_TRUE(linear.ok()) << linear.status();
  for (int64_t m : {1, 4, 64, 200}) {
    EXPECT_EQ((*linear)->Select(m, 256, 512, ComputeType::kBFloat16), LinearPath::kCublasLt);
    for (LinearEpilogue epilogue : kEpilogues) {
      Check(Problem(m, 256, 512, ComputeType::kBFloat16), epilogue, true,
            [&](const GemmParams& p) { return (*linear)->Run(p, stream_); });
    }
  }
}

TEST_F(GemmGpuTest, LinearDispatchesByBatchAndCanBeCaptured) {
  auto linear = CudaLinear::Create(device_, {});
  ASSERT_TRUE(linear.ok()) << linear.status();
  for (int64_t m : {1, 4, 5, 64, 65, 128, 200}) {
    Check(Problem(m, 256, 512, ComputeType::kBFloat16), LinearEpilogue::kNone, true,
          [&](const GemmParams& p) -> absl::Status {
            ASSIGN_OR_RETURN(const CudaGraph graph, CudaGraph::Capture(stream_, [&] {
                               return (*linear)->Run(p, stream_);
                             }));
            RETURN_IF_ERROR(graph.Launch(stream_));
            return stream_.Synchronize();
          });
  }
}

TEST_F(GemmGpuTest, RefusesBadParametersBeforeAnyLaunch) {
  alignas(16) char memory[64] = {};
  GemmParams params{.m = 1, .n = 8, .k = 8, .weight = memory, .x = memory, .y = memory};
  const SkinnyPlan plan = *PlanSkinny(1, 8, 8, 1);
  params.weight = memory + 2;
  EXPECT_EQ(SkinnyGemm(params, plan, nullptr).code(), absl::StatusCode::kInvalidArgument);
  params.weight = nullptr;
  EXPECT_EQ(SkinnyGemm(params, plan, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cublas_lt_->Run(params, stream_).code(), absl::StatusCode::kInvalidArgument);
  params.weight = memory;
  params.m = 0;
  EXPECT_EQ(SkinnyGemm(params, plan, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cublas_lt_->Run(params, stream_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanlin
