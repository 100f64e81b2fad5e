// Embedding of whole vocabularies and of shards, exactly.
#include "kernels/embed/cpu/embed.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/base/kernel_testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::RandomFloats;

class EmbedTest : public ::testing::TestWithParam<ComputeType> {
 protected:
  static constexpr int64_t kVocabulary = 37, kWidth = 21, kPositions = 9;

  EmbedTest()
      : tokens_(RandomFloats(kVocabulary * kWidth, 1)),
        positions_(RandomFloats(kPositions * kWidth, 2)),
        arena_(*Arena::Create(PackedMatrix::Bytes(GetParam(), kVocabulary, kWidth))) {
    table_ = *PackedMatrix::Create(GetParam(), kVocabulary, kWidth, arena_);
    table_.PackRows(0, kVocabulary, tokens_.data());
  }
  float Token(int64_t id, int64_t i) const {
    const float value = tokens_[id * kWidth + i];
    return GetParam() == ComputeType::kFloat32 ? value : ToFloat(ToBFloat16(value));
  }

  std::vector<float> tokens_, positions_;
  Arena arena_;
  PackedMatrix table_;
};

TEST_P(EmbedTest, AddsTheRowOfTheTokenAndTheRowOfThePosition) {
  const std::vector<int32_t> ids = {0, 36, 17, 17, 5}, positions = {8, 0, 3, 4, 0};
  ThreadPool pool(2);
  std::vector<float> out(ids.size() * kWidth);
  Embed({.rows = 5,
         .ids = ids.data(),
         .positions = positions.data(),
         .table = table_,
         .position_table = positions_.data(),
         .out = out.data()},
        pool);
  for (size_t r = 0; r < ids.size(); ++r) {
    for (int64_t i = 0; i < kWidth; ++i) {
      EXPECT_EQ(out[r * kWidth + i], Token(ids[r], i) + positions_[positions[r] * kWidth + i]);
    }
  }
}

TEST_P(EmbedTest, AShardOfTheVocabularyGivesZerosForForeignIds) {
  const std::vector<int32_t> ids = {99, 100, 136, 137, 0};
  ThreadPool pool(1);
  std::vector<float> out(ids.size() * kWidth, 7.0f);
  Embed({.rows = 5, .ids = ids.data(), .table = table_, .vocabulary_begin = 100, .out = out.data()},
        pool);
  for (size_t r = 0; r < ids.size(); ++r) {
    const bool mine = ids[r] >= 100 && ids[r] < 137;
    for (int64_t i = 0; i < kWidth; ++i) {
      EXPECT_EQ(out[r * kWidth + i], mine ? Token(ids[r] - 100, i) : 0.0f) << ids[r];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EmbedTest,
                         ::testing::Values(ComputeType::kFloat32, ComputeType::kBFloat16));

}  // namespace
}  // namespace hanlin
