// The laws of decode attention's plan.
#include <gtest/gtest.h>

#include "kernels/attention/cuda/paged_attention.h"

namespace hanlin {
namespace {

constexpr size_t kSharedH100 = 232448;
constexpr int kMultiprocessorsH100 = 132;
constexpr auto kBf16 = ComputeType::kBFloat16;

CudaDevice H100() {
  CudaDevice device;
  device.hopper = true;
  device.multiprocessors = kMultiprocessorsH100;
  device.shared_memory_per_block = kSharedH100;
  return device;
}

absl::StatusOr<DecodeAttentionPlan> PlanH100(ComputeType type, int batch, int heads, int dim) {
  return PlanDecodeAttention(type, batch, heads, dim, H100());
}

TEST(DecodeAttentionPlanTest, SplitsSmallBatchesOverTheDeviceWithTheSameWarpsInAll) {
  for (int dim : {64, 80, 128}) {
    for (int heads : {12, 16, 32, 40, 56}) {
      for (int batch : {1, 2, 4, 8, 32, 128}) {
        const auto plan = PlanH100(kBf16, batch, heads, dim);
        ASSERT_TRUE(plan.ok()) << plan.status();
        EXPECT_FALSE(plan->plain);
        EXPECT_EQ(plan->cluster * plan->warps, 16) << "the bits depend on it";
        EXPECT_LE(plan->shared_bytes, kSharedH100);
        if (batch > 1) continue;
        EXPECT_GT(plan->cluster, 1);
        EXPECT_LE(plan->cluster * heads, kMultiprocessorsH100);
      }
    }
  }
}

TEST(DecodeAttentionPlanTest, OtherTypesSizesAndDevicesTakeThePlainPath) {
  EXPECT_TRUE(PlanH100(ComputeType::kFloat32, 1, 32, 80)->plain);
  EXPECT_TRUE(PlanH100(kBf16, 1, 32, 72)->plain);
  CudaDevice small = H100(), other = H100();
  small.shared_memory_per_block = 48 * 1024;
  other.hopper = false;
  EXPECT_TRUE(PlanDecodeAttention(kBf16, 1, 32, 80, small)->plain);
  EXPECT_TRUE(PlanDecodeAttention(kBf16, 1, 32, 80, other)->plain);
}

TEST(DecodeAttentionPlanTest, RefusesWhatNoKernelDoes) {
  const auto code = [](int batch, int heads, int dim) {
    return PlanH100(kBf16, batch, heads, dim).status().code();
  };
  EXPECT_EQ(code(0, 1, 64), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 0, 64), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 1, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 1, 12), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1, 1, 136), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(1 << 20, 1, 64), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanlin
