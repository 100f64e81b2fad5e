// Plans: checked against every limit, and equal behind serialisation.
#include "model/forward/step.h"

#include <algorithm>
#include <numeric>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

constexpr StepLimits kLimits = {
    .vocab_size = 100, .max_positions = 64, .num_blocks = 8, .block_tokens = 16};

// Two sequences: a prefill chunk of 3 behind 15 tokens (2 blocks) and a decode step behind 1.
struct Plan {
  std::vector<int32_t> tokens = {1, 2, 3, 99};
  std::vector<StepSequence> sequences = {{0, 3, 15, 0, 2}, {3, 1, 1, 2, 1}};
  std::vector<int32_t> block_table = {7, 0, 3};
  std::vector<int32_t> logit_rows = {2, 3};

  StepBatch batch() const { return {tokens, sequences, block_table, logit_rows}; }
};

void ExpectRefused(const Plan& plan, const char* message) {
  EXPECT_THAT(CheckStep(plan.batch(), kLimits),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(StepTest, GoodPlanPasses) { EXPECT_OK(CheckStep(Plan().batch(), kLimits)); }

TEST(StepTest, EachViolationIsNamed) {
  Plan plan;
  plan.tokens[3] = 100;
  ExpectRefused(plan, "token id 100");
  plan = {};
  plan.block_table[0] = 8;
  ExpectRefused(plan, "KV block 8");
  plan = {};
  plan.sequences[1].first_token = 2;
  ExpectRefused(plan, "sequence 1");
  plan = {};
  plan.sequences[0].context_tokens = 62;
  ExpectRefused(plan, "reaches 65 positions, the context holds 64");
  plan = {};
  plan.sequences[0].context_tokens = 30;
  ExpectRefused(plan, "want 3 for 33 positions");
  plan = {};
  plan.sequences[1].first_block = 3;
  ExpectRefused(plan, "blocks 3+1 of a table of 3");
  plan = {};
  plan.sequences.pop_back();
  ExpectRefused(plan, "hold 3 tokens, the step 4");
  plan = {};
  plan.logit_rows = {3, 2};
  ExpectRefused(plan, "logit row 2 after 3");
  plan.logit_rows = {4};
  ExpectRefused(plan, "logit row 4");
}

TEST(StepTest, SerialisedPlanParsesBack) {
  const Plan plan;
  std::vector<std::byte> bytes;
  SerializeStep(plan.batch(), &bytes);
  ASSERT_OK_AND_ASSIGN(const StepBatch parsed, ParseStep(bytes));
  EXPECT_TRUE(std::ranges::equal(parsed.tokens, plan.tokens));
  EXPECT_TRUE(std::ranges::equal(parsed.block_table, plan.block_table));
  EXPECT_TRUE(std::ranges::equal(parsed.logit_rows, plan.logit_rows));
  ASSERT_EQ(parsed.sequences.size(), 2u);
  EXPECT_EQ(parsed.sequences[0].context_tokens, 15);
  EXPECT_EQ(parsed.sequences[1].first_block, 2);
  EXPECT_LT(bytes.size(), 100u);
}

TEST(StepTest, TruncatedOrLyingPlanIsRefused) {
  std::vector<std::byte> bytes;
  SerializeStep(Plan().batch(), &bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseStep(std::span(bytes).first(size)).ok()) << size;
  }
  for (size_t i = 0; i < 20; ++i) {  // every byte of the header matters
    bytes[i] ^= std::byte{0x80};
    EXPECT_FALSE(ParseStep(bytes).ok()) << i;
    bytes[i] ^= std::byte{0x80};
  }
}

}  // namespace
}  // namespace hanlin
