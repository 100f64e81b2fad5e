// Scores of a text over a fake forward pass whose logits are known.
#include "worker/engine/score.h"

#include <cmath>

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using testing::StatusIs;

constexpr StepLimits kLimits = {
    .vocab_size = 5, .max_positions = 1000, .num_blocks = 100, .block_tokens = 16};

// Logit of id i behind token t at position p.
float Logit(int32_t token, int32_t position, int32_t id) {
  return 0.5f * static_cast<float>((token * 7 + position * 3 + id * id) % 11);
}

// Fills the logits of a step, and checks that it goes on where the one before ended.
class FakeForward {
 public:
  absl::Status operator()(const StepBatch& batch, std::span<float> logits) {
    EXPECT_OK(CheckStep(batch, kLimits));
    EXPECT_EQ(batch.sequences[0].context_tokens, seen_);
    for (size_t row = 0; row < batch.logit_rows.size(); ++row) {
      for (int32_t id = 0; id < kLimits.vocab_size; ++id) {
        logits[row * kLimits.vocab_size + id] =
            Logit(batch.tokens[batch.logit_rows[row]], seen_ + batch.logit_rows[row], id);
      }
    }
    seen_ += static_cast<int32_t>(batch.tokens.size());
    return absl::OkStatus();
  }

 private:
  int32_t seen_ = 0;
};

TEST(ScoreIdsTest, IsTheLogSoftmaxOfEachNextIdAcrossChunks) {
  ThreadPool pool(2);
  for (const int total : {1, 2, 127, 128, 129, 300}) {
    std::vector<int32_t> ids(total);
    for (int i = 0; i < total; ++i) ids[i] = i * 13 % kLimits.vocab_size;
    ASSERT_OK_AND_ASSIGN(const auto scores, ScoreIds(ids, kLimits, FakeForward(), pool));
    ASSERT_EQ(scores.size(), ids.size());
    EXPECT_FALSE(scores[0].has_value());
    for (int i = 1; i < total; ++i) {
      double sum = 0;
      for (int id = 0; id < kLimits.vocab_size; ++id) {
        sum += std::exp(static_cast<double>(Logit(ids[i - 1], i - 1, id)));
      }
      ASSERT_TRUE(scores[i].has_value()) << i << " of " << total;
      EXPECT_NEAR(*scores[i], Logit(ids[i - 1], i - 1, ids[i]) - std::log(sum), 1e-5) << i;
    }
  }
}

TEST(ScoreIdsTest, AForwardPassThatFailsEndsIt) {
  ThreadPool pool(1);
  const std::vector<int32_t> ids = {1, 2};
  const auto fail = [](const StepBatch&, std::span<float>) {
    return absl::UnavailableError("rank 1 is gone");
  };
  EXPECT_THAT(ScoreIds(ids, kLimits, fail, pool),
              StatusIs(absl::StatusCode::kUnavailable, "rank 1 is gone"));
}

}  // namespace
}  // namespace hanlin
