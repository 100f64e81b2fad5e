// The size of the KV cache.
#include "worker/engine/memory_plan.h"

#include "common/testing/testing.h"
#include "model/forward/model.h"
#include "model/weights/weights.h"

namespace hanlin {
namespace {

using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

class MemoryPlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(request_.config, Preset("base"));
    weights_ = WeightBytes(request_.config, request_.type, 1);
    block_ = GptModel::KvBlockBytes(request_.config, request_.type, 1);
    context_blocks_ = request_.config.max_positions / GptModel::block_tokens();
  }

  MemoryRequest request_;
  uint64_t weights_ = 0;
  uint64_t block_ = 0;
  int32_t context_blocks_ = 0;
};

TEST_F(MemoryPlanTest, HalfOfWhatTheWeightsLeaveIsForTheCache) {
  request_.available_bytes = weights_ + 2 * 1000 * block_;
  ASSERT_OK_AND_ASSIGN(const int32_t blocks, PlanKvBlocks(request_));
  EXPECT_EQ(blocks, 1000);
}

TEST_F(MemoryPlanTest, TheCacheHoldsAtLeastOneContext) {
  request_.available_bytes = weights_ + context_blocks_ * block_;
  ASSERT_OK_AND_ASSIGN(const int32_t blocks, PlanKvBlocks(request_));
  EXPECT_EQ(blocks, context_blocks_);
  --request_.available_bytes;
  EXPECT_THAT(PlanKvBlocks(request_),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not enough memory")));
}

TEST_F(MemoryPlanTest, NoMoreThanAllSequencesCanUse) {
  request_.available_bytes = uint64_t{1} << 50;
  request_.max_running = 3;
  ASSERT_OK_AND_ASSIGN(const int32_t blocks, PlanKvBlocks(request_));
  EXPECT_EQ(blocks, 3 * context_blocks_);
}

TEST_F(MemoryPlanTest, AGivenSizeIsTakenWhenItIsThere) {
  request_.available_bytes = weights_ + 11 * block_;
  request_.kv_bytes = 10 * block_ + 1;
  ASSERT_OK_AND_ASSIGN(const int32_t blocks, PlanKvBlocks(request_));
  EXPECT_EQ(blocks, 10);
  request_.kv_bytes = 12 * block_;
  EXPECT_THAT(PlanKvBlocks(request_),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not enough memory")));
  request_.kv_bytes = block_ - 1;
  EXPECT_THAT(PlanKvBlocks(request_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at least")));
}

TEST_F(MemoryPlanTest, TheAdviceFitsTheTypeInUse) {
  request_.available_bytes = 1;
  EXPECT_THAT(PlanKvBlocks(request_),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--dtype bf16")));
  request_.type = ComputeType::kBFloat16;
  EXPECT_THAT(PlanKvBlocks(request_),
              StatusIs(absl::StatusCode::kResourceExhausted, Not(HasSubstr("--dtype bf16"))));
}

TEST_F(MemoryPlanTest, RanksOfOneHostShareItsMemory) {
  request_.available_bytes = weights_ * 3;
  ASSERT_OK_AND_ASSIGN(const int32_t alone, PlanKvBlocks(request_));
  request_.tp = 2;
  ASSERT_OK_AND_ASSIGN(const int32_t shared, PlanKvBlocks(request_));
  EXPECT_LE(shared, alone) << "replicated tensors are held twice";
  EXPECT_GT(shared, alone / 2) << "a block of a group of two has half the heads on each rank";
}

TEST(FormatBytes, PicksAUnitThatReadsWell) {
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 30), "3.0 GiB");
}

}  // namespace
}  // namespace hanlin
