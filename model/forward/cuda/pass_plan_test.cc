// The plan of a pass as the device will read it: order, padding, tables, and lists behind them.
#include "model/forward/cuda/pass_plan.h"

#include <gmock/gmock.h>

#include <cstring>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;

constexpr int32_t kStride = 4;

// Two sequences that decode, then a chunk of three tokens, then one token more.
struct Example {
  std::vector<int32_t> tokens = {10, 11, 20, 21, 22, 30};
  std::vector<int32_t> table = {7, 3, 9, 5, 8, 1};
  std::vector<StepSequence> sequences = {
      {0, 1, 16, 0, 2}, {1, 1, 3, 2, 1}, {2, 3, 14, 3, 2}, {5, 1, 0, 5, 1}};
  std::vector<int32_t> rows = {0, 1, 4};

  Pass OnlyPass() const { return CutIntoPasses({tokens, sequences, table, rows}, 100).front(); }
};

std::vector<int32_t> Row(const int32_t* from, int count) { return {from, from + count}; }

TEST(PassPlanTest, LeadingSingleTokensAreDecodeRowsAndTheRestSegments) {
  const Example example;
  const Pass pass = example.OnlyPass();
  const PassShape shape = ShapeOf(pass, kStride, true);
  EXPECT_EQ(
      shape,
      (PassShape{
          .tokens = 6, .decode_rows = 2, .segments = 2, .logit_rows = 3, .table_stride = kStride}));
  EXPECT_EQ(ShapeOf(pass, kStride, false).segments, 4);

  alignas(16) std::byte memory[4096];
  ASSERT_LT(FixedBytes(shape), sizeof(memory));
  const PassView view = ViewOf(memory, shape);
  EXPECT_EQ(FillPass(pass, 16, shape, view), 3);
  EXPECT_THAT(Row(view.ids, 6), ElementsAre(10, 11, 20, 21, 22, 30));
  EXPECT_THAT(Row(view.positions, 6), ElementsAre(16, 3, 14, 15, 16, 0));
  EXPECT_THAT(Row(view.context, 2), ElementsAre(16, 3));
  EXPECT_THAT(Row(view.row_index, 3), ElementsAre(0, 1, 4));
  EXPECT_EQ(view.segments[0].first_token, 2);
  EXPECT_EQ(view.segments[0].num_tokens, 3);
  EXPECT_EQ(view.segments[0].context_tokens, 14);
  EXPECT_EQ(view.segments[1].first_token, 5);
  EXPECT_EQ(view.segments[1].num_tokens, 1);
  EXPECT_THAT(Row(view.tables, 2), ElementsAre(7, 3));
  EXPECT_EQ(view.tables[kStride], 9);
  const int32_t* const chunks = view.tables + 2 * kStride;
  EXPECT_THAT(Row(chunks + view.segments[0].sequence * kStride, 2), ElementsAre(5, 8));
  EXPECT_EQ(chunks[view.segments[1].sequence * kStride], 1);
}

TEST(PassPlanTest, ALargerShapeIsPadded) {
  const std::vector<int32_t> tokens = {10, -1}, table = {7, 9}, rows = {0, 1};
  const std::vector<StepSequence> sequences = {{0, 1, 5, 0, 1}, {1, 1, 3, 1, 1}};
  const Pass pass = CutIntoPasses({tokens, sequences, table, rows}, 100).front();
  for (const bool decode_kernel : {true, false}) {
    const PassShape shape = {.tokens = 4,
                             .decode_rows = decode_kernel ? 4 : 0,
                             .segments = decode_kernel ? 0 : 4,
                             .logit_rows = 4,
                             .table_stride = kStride};
    alignas(16) std::byte memory[4096];
    std::memset(memory, 0x55, sizeof(memory));
    const PassView view = ViewOf(memory, shape);
    FillPass(pass, 16, shape, view);
    EXPECT_THAT(Row(view.ids, 4), ElementsAre(10, -1, 0, 0));
    EXPECT_THAT(Row(view.positions, 4), ElementsAre(5, 3, -1, -1));
    if (decode_kernel) {
      EXPECT_THAT(Row(view.context, 4), ElementsAre(5, 3, -1, -1));
    } else {
      EXPECT_EQ(view.segments[1].num_tokens, 1);
      EXPECT_EQ(view.segments[3].num_tokens, 0);
    }
    std::vector<CountedRow> counted;
    EXPECT_EQ(FillSamples(std::vector<CudaSampleRow>(2), shape, view, &counted), 0u);
    EXPECT_THAT(Row(view.row_slots, 4), ElementsAre(0, 1, -1, -1));
  }
}

TEST(PassPlanTest, ArraysAreAlignedAndApart) {
  const PassShape shape = {
      .tokens = 3, .decode_rows = 1, .segments = 1, .logit_rows = 5, .table_stride = 3};
  const PassView view = ViewOf(nullptr, shape);
  const auto at = [](const auto* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
  const uintptr_t starts[] = {
      at(view.ids),       at(view.positions), at(view.context),          at(view.segments),
      at(view.row_index), at(view.row_slots), at(view.sample_positions), at(view.slots),
      at(view.tables),    at(view.extra)};
  const size_t bytes[] = {12, 12, 4, sizeof(PrefillSegment), 20, 20, 20, 5 * sizeof(SampleSlot),
                          24};
  for (size_t i = 0; i < std::size(bytes); ++i) {
    EXPECT_EQ(starts[i] % 16, 0u);
    EXPECT_GE(starts[i + 1], starts[i] + bytes[i]);
  }
}

TEST(PassPlanTest, ListsOfRowsLieBehindTheFixedPart) {
  const std::vector<LogitBias> bias = {{5, 1.5f}, {6, -1.0f}};
  const std::vector<int32_t> banned = {1, 2, 3}, ids = {40, 41, 42, 43};
  std::vector<CudaSampleRow> samples(3);
  samples[0].logit_bias = bias;
  samples[0].ids = ids;  // without penalties: not needed
  samples[1].banned = banned;
  samples[1].slot.presence_penalty = 0.5f;
  samples[1].ids = ids;
  samples[2].logit_bias = std::span(bias).first(1);
  samples[2].banned = std::span(banned).first(1);
  samples[2].position = 99;
  const PassShape shape = {.tokens = 3, .logit_rows = 3, .table_stride = 1};
  alignas(16) std::byte memory[4096];
  const PassView view = ViewOf(memory, shape);
  std::vector<CountedRow> counted;
  const size_t extra = FillSamples(samples, shape, view, &counted);
  EXPECT_EQ(extra, ExtraBytes(samples));
  EXPECT_EQ(extra, 3 * sizeof(SampleBias) + (3 + 4 + 1) * sizeof(int32_t));

  const auto* biases = reinterpret_cast<const SampleBias*>(view.extra);
  const auto* words = reinterpret_cast<const int32_t*>(view.extra);
  EXPECT_EQ(view.slots[0].bias_count, 2);
  EXPECT_EQ(biases[view.slots[0].bias_begin + 1].id, 6);
  EXPECT_EQ(biases[view.slots[2].bias_begin].bias, 1.5f);
  EXPECT_THAT(Row(words + view.slots[1].banned_begin, view.slots[1].banned_count),
              ElementsAre(1, 2, 3));
  EXPECT_GT(view.slots[2].banned_before, 99);
  EXPECT_THAT(Row(words + view.slots[2].banned_begin, view.slots[2].banned_count), ElementsAre(1));
  EXPECT_EQ(view.slots[0].counts_row, -1);
  ASSERT_EQ(counted.size(), 1u);
  EXPECT_EQ(view.slots[1].counts_row, counted[0].row);
  EXPECT_THAT(Row(words + counted[0].offset / 4, counted[0].count), ElementsAre(40, 41, 42, 43));
  EXPECT_EQ(view.sample_positions[2], 99);
}

}  // namespace
}  // namespace hanlin
