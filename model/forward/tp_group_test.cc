// A group's life as its leader sees it: bad steps harm nothing, a lost rank ends everything by
// name.
#include "model/forward/tp_group.h"

#include <atomic>

#include "common/testing/testing.h"
#include "common/threading/thread_pool.h"
#include "model/comm/testing.h"
#include "model/forward/model.h"
#include "model/forward/testing.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::RunRanks;
using testing::StatusIs;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 32;
  config.num_layers = 3;
  config.num_heads = 4;
  config.head_dim = 8;
  config.ffn_size = 128;
  config.max_positions = 40;
  return config;
}

class TpGroupTest : public ::testing::TestWithParam<int> {
 protected:
  // One step of `tokens` at the start of a sequence on blocks 0, 1, 2.
  absl::Status Step(TpGroup& group, const std::vector<int32_t>& tokens, std::span<float> logits) {
    const StepSequence sequence = {0, static_cast<int32_t>(tokens.size()), 0, 0, 3};
    const int32_t blocks[] = {0, 1, 2};
    const int32_t row = static_cast<int32_t>(tokens.size()) - 1;
    return group.RunStep({tokens, {&sequence, 1}, blocks, {&row, 1}}, logits);
  }

  std::unique_ptr<GptModel> MakeModel(Communicator& communicator, ThreadPool* pool) {
    auto model = GptModel::Create({.checkpoint = checkpoint_.get(),
                                   .communicator = &communicator,
                                   .pool = pool,
                                   .num_kv_blocks = 3,
                                   .heartbeat = &heartbeat_});
    EXPECT_OK(model);
    return *std::move(model);
  }

  const std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::Random(SmallConfig());
  std::atomic<uint64_t> heartbeat_ = 0;
};
INSTANTIATE_TEST_SUITE_P(GroupSize, TpGroupTest, ::testing::Values(1, 2, 4));

TEST_P(TpGroupTest, BadStepsAreRefusedAndTheGroupGoesOn) {
  RunRanks(GetParam(), [this](Communicator& communicator) {
    ThreadPool pool(1);
    const auto model = MakeModel(communicator, &pool);
    if (communicator.rank() != 0) {
      EXPECT_OK(FollowerLoop(model.get(), &communicator));
      return;
    }
    TpGroup group(model.get(), &communicator);
    std::vector<float> logits(64), again(64);
    EXPECT_OK(Step(group, {1, 2, 3}, logits));
    EXPECT_THAT(Step(group, {1, 64}, again),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("token id 64")));
    EXPECT_THAT(Step(group, std::vector<int32_t>(41, 1), again),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("context holds 40")));
    EXPECT_THAT(Step(group, {1}, std::span(again).first(63)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("63 logits, want 64")));
    EXPECT_OK(group.Ping());
    EXPECT_OK(Step(group, {1, 2, 3}, again));
    EXPECT_EQ(logits, again);
    EXPECT_OK(group.Shutdown());
  });
}

TEST_P(TpGroupTest, HeartbeatAdvancesPerLayer) {
  RunRanks(GetParam(), [this](Communicator& communicator) {
    ThreadPool pool(1);
    const auto model = MakeModel(communicator, &pool);
    if (communicator.rank() != 0) {
      EXPECT_OK(FollowerLoop(model.get(), &communicator));
      return;
    }
    TpGroup group(model.get(), &communicator);
    std::vector<float> logits(64);
    EXPECT_OK(Step(group, {1}, logits));
    EXPECT_OK(group.Shutdown());
  });
  EXPECT_EQ(heartbeat_, 4u * GetParam());  // three layers and one chunk of logits on every rank
}

TEST_P(TpGroupTest, LostRankEndsStepsAndPingsByName) {
  if (GetParam() == 1) GTEST_SKIP() << "a group of one has no peers";
  RunRanks(GetParam(), [this](Communicator& communicator) {
    ThreadPool pool(1);
    const auto model = MakeModel(communicator, &pool);
    const int last = communicator.size() - 1;
    if (communicator.rank() == last) return;  // its connection closes
    if (communicator.rank() != 0) {
      EXPECT_THAT(FollowerLoop(model.get(), &communicator),
                  StatusIs(absl::StatusCode::kUnavailable, HasSubstr("is gone")));
      return;
    }
    TpGroup group(model.get(), &communicator);
    const std::string message = fmt::format("rank {} of {} is gone", last, communicator.size());
    std::vector<float> logits(64);
    EXPECT_THAT(Step(group, {1}, logits),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr(message)));
    EXPECT_THAT(group.Ping(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr(message)));
  });
}

TEST(GptModelTest, BadOptionsAreRefused) {
  ModelConfig config = SmallConfig();
  ThreadPool pool(1);
  auto checkpoint = Checkpoint::Random(config);
  EXPECT_THAT(GptModel::Create({.checkpoint = checkpoint.get(), .pool = &pool}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 KV blocks")));
  config.head_dim = 4;
  config.num_heads = 8;
  checkpoint = Checkpoint::Random(config);
  EXPECT_THAT(GptModel::Create({.checkpoint = checkpoint.get(), .pool = &pool, .num_kv_blocks = 1}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("head size 4")));
}

TEST(GptModelTest, DegreeThatDoesNotDivideIsRefusedOnEveryRank) {
  const auto checkpoint = Checkpoint::Random(SmallConfig());
  RunRanks(3, [&](Communicator& communicator) {
    ThreadPool pool(1);
    EXPECT_THAT(GptModel::Create({.checkpoint = checkpoint.get(),
                                  .communicator = &communicator,
                                  .pool = &pool,
                                  .num_kv_blocks = 1}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  });
}

}  // namespace
}  // namespace hanlin
