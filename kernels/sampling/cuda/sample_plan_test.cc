// The laws of a launch's plan, of its parameters and of a slot, on the host.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/sampling/cuda/sample.h"

namespace hanlin {
namespace {

CudaDevice H100() {
  CudaDevice device;
  device.hopper = true;
  device.multiprocessors = 132;
  device.shared_memory_per_block = 232448;
  return device;
}

TEST(SamplePlanTest, FewRowsShareTheDeviceAndManyTakeOneBlockEach) {
  EXPECT_EQ(PlanSample(1, 51200, H100())->cluster, 8);
  EXPECT_EQ(PlanSample(14, 51200, H100())->cluster, 8);
  EXPECT_EQ(PlanSample(16, 51200, H100())->cluster, 4) << "15 clusters of 8 run at once";
  EXPECT_EQ(PlanSample(32, 51200, H100())->cluster, 2) << "30 clusters of 4 run at once";
  EXPECT_EQ(PlanSample(128, 51200, H100())->cluster, 1);
  EXPECT_EQ(PlanSample(1, 1000, H100())->cluster, 1) << "not worth sharing";
  EXPECT_EQ(PlanSample(500, 151936, H100())->cluster, 4) << "does not fit in fewer";
}

TEST(SamplePlanTest, ThePlainPathHasOneBlockARow) {
  CudaDevice a100;
  a100.multiprocessors = 108;
  a100.shared_memory_per_block = 166912;
  for (int rows : {1, 64, 500}) {
    for (int vocabulary : {1, 51201, kSampleMaxVocabulary}) {
      const SamplePlan plan = *PlanSample(rows, vocabulary, a100);
      EXPECT_TRUE(plan.plain);
      EXPECT_EQ(plan.cluster, 1);
      EXPECT_EQ(plan.slice, (vocabulary + 63) / 64 * 64);
      EXPECT_EQ(plan.shared_bytes, kSampleScratchBytes);
    }
  }
}

TEST(SamplePlanTest, SlicesCoverTheVocabularyInWholeGroups) {
  for (int vocabulary : {1, 64, 65, 25600, 51200, 51201, 250000, kSampleMaxVocabulary}) {
    for (int rows : {1, 7, 128, 1000}) {
      const auto plan = PlanSample(rows, vocabulary, H100());
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ(plan->slice % 64, 0);
      EXPECT_GE(plan->slice * plan->cluster, vocabulary);
      EXPECT_LE(plan->shared_bytes, 232448);
    }
  }
}

TEST(SamplePlanTest, RefusesWhatTheKernelDoesNotDo) {
  EXPECT_FALSE(PlanSample(1, 0, H100()).ok());
  EXPECT_FALSE(PlanSample(1, kSampleMaxVocabulary + 1, H100()).ok());
  EXPECT_FALSE(PlanSample(-1, 100, H100()).ok());
  CudaDevice small = H100();
  small.shared_memory_per_block = 49152;
  EXPECT_FALSE(PlanSample(1, 200000, small).ok());
}

TEST(SampleTest, RefusesBadParametersBeforeAnyLaunch) {
  SamplePlan plan = *PlanSample(1, 100, H100());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 100, .logits_stride = 99}, plan, {}).ok());
  EXPECT_FALSE(CudaSample({.rows = 1, .vocabulary = 200, .logits_stride = 200}, plan, {}).ok());
  EXPECT_TRUE(CudaSample({.rows = 0, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
  plan.plain = true;
  plan.cluster = 2;
  EXPECT_FALSE(CudaSample({.rows = 0, .vocabulary = 100, .logits_stride = 100}, plan, {}).ok());
}

TEST(SampleSlotTest, HoldsWhatTheHostComputesOnce) {
  EXPECT_TRUE(MakeSampleSlot({.temperature = 0.0f}).greedy);
  EXPECT_FALSE(MakeSampleSlot({.temperature = 0.5f}).greedy);
  EXPECT_EQ(MakeSampleSlot({.temperature = 0.5f}).scale, 2.0f);
  EXPECT_EQ(MakeSampleSlot({.min_p = 0.5f}).log_min_p, std::log(0.5f));
  EXPECT_FALSE(MakeSampleSlot({}).has_min_p);
}

}  // namespace
}  // namespace hanlin
