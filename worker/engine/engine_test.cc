// The engine around an executor without a model: life, end and accounting of requests.
#include "worker/engine/engine.h"

#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "common/testing/testing.h"
#include "worker/engine/null_executor.h"
#include "worker/engine/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Recorded;
using ::hanlin::testing::RecordingSink;
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelConfig TestConfig() {
  ModelConfig config;
  config.vocab_size = 400;
  config.max_positions = 128;
  config.end_token_ids = {1};
  return config;
}

GenerationRequest Request(uint64_t id, int prompt_tokens, int max_new_tokens) {
  GenerationRequest request;
  request.id = id;
  for (int i = 0; i < prompt_tokens; ++i) request.ids.push_back(10 + i);
  request.num_prompt_tokens = prompt_tokens;
  request.stopping.max_new_tokens = max_new_tokens;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  void Start(Engine::Options options = {}, absl::Duration delay = absl::ZeroDuration()) {
    options.config = TestConfig();
    if (options.num_kv_blocks == 0) options.num_kv_blocks = 64;
    auto executor = std::make_unique<NullExecutor>(
        NullExecutor::Options{.config = TestConfig(), .delay = delay});
    formula_ = executor.get();
    ASSERT_OK_AND_ASSIGN(engine_, Engine::Create(options, std::move(executor)));
  }
  // The load once nothing runs any more.
  EngineLoad IdleLoad() {
    EXPECT_TRUE(engine_->WaitIdle(absl::Seconds(20)));
    for (int i = 0; i < 200; ++i) {
      const EngineLoad load = engine_->load();
      if (load.used_kv_blocks == 0 && load.queued_requests == 0) break;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return engine_->load();
  }
  std::vector<int32_t> Formula(int begin, int count) const {
    std::vector<int32_t> ids;
    for (int i = begin; i < begin + count; ++i) ids.push_back(formula_->IdAt(i));
    return ids;
  }

  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  NullExecutor* formula_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, GeneratesUpToMaxNewTokens) {
  Start();
  const SubmitResult result = engine_->Submit(Request(1, 5, 7), sink_);
  ASSERT_OK(result.status);
  EXPECT_EQ(result.max_new_tokens, 7);
  const Recorded recorded = sink_->WaitFor(1);
  EXPECT_EQ(recorded.ids, Formula(5, 7));
  EXPECT_EQ(recorded.events, 7) << "one event a token";
  EXPECT_EQ(recorded.last.finish_reason, FinishReason::kLength);
  EXPECT_EQ(recorded.last.usage.prompt_tokens, 5);
  EXPECT_EQ(recorded.last.usage.completion_tokens, 7);
  EXPECT_LE(recorded.last.timings.queue, recorded.last.timings.time_to_first_token);
  EXPECT_LE(recorded.last.timings.time_to_first_token, recorded.last.timings.total);
}

TEST_F(EngineTest, EndTokensStopIdsAndMinimumAreObeyed) {
  Start();
  GenerationRequest request = Request(1, 5, 50);
  const std::vector<int32_t> ids = Formula(5, 50);
  request.stopping.stop_ids = {ids[3]};
  ASSERT_OK(engine_->Submit(request, sink_).status);
  const Recorded stopped = sink_->WaitFor(1);
  EXPECT_EQ(stopped.ids, Formula(5, 4));
  EXPECT_EQ(stopped.last.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.last.stop_id, ids[3]);

  request.id = 2;
  request.stopping.min_new_tokens = 10;
  ASSERT_OK(engine_->Submit(request, sink_).status);
  const Recorded longer = sink_->WaitFor(2);
  ASSERT_GE(longer.ids.size(), 10u);
  EXPECT_EQ(std::count(longer.ids.begin(), longer.ids.begin() + 9, ids[3]), 0)
      << "a stop id was drawn before min_new_tokens";
}

TEST_F(EngineTest, AResumedRequestContinuesAndCountsWhatWasThere) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, 5, 9), sink_).status);
  const Recorded whole = sink_->WaitFor(1);
  GenerationRequest request = Request(2, 5, 9);
  request.ids.insert(request.ids.end(), whole.ids.begin(), whole.ids.begin() + 4);
  ASSERT_OK(engine_->Submit(request, sink_).status);
  const Recorded rest = sink_->WaitFor(2);
  EXPECT_EQ(rest.ids, std::vector<int32_t>(whole.ids.begin() + 4, whole.ids.end()));
  EXPECT_EQ(rest.last.usage.completion_tokens, 9);
}

TEST_F(EngineTest, LogprobsComeOnePerIdWhenAskedFor) {
  Start();
  GenerationRequest request = Request(1, 5, 3);
  ASSERT_OK(engine_->Submit(request, sink_).status);
  EXPECT_THAT(sink_->WaitFor(1).logprobs, IsEmpty());
  request.id = 2;
  request.logprobs = 0;
  ASSERT_OK(engine_->Submit(request, sink_).status);
  const Recorded recorded = sink_->WaitFor(2);
  ASSERT_EQ(recorded.logprobs.size(), 3u);
  EXPECT_EQ(recorded.logprobs[1].token.id, recorded.ids[1]);
  EXPECT_THAT(recorded.logprobs[1].top, IsEmpty());
}

TEST_F(EngineTest, ASinkHearsOnceAStepOfAllItsRequests) {
  Start({}, absl::Milliseconds(5));
  for (int i = 0; i < 8; ++i) ASSERT_OK(engine_->Submit(Request(i, 3, 20), sink_).status);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(sink_->WaitFor(i).done);
  EXPECT_LE(sink_->batches(), 30) << "8 requests of 20 tokens";
}

TEST_F(EngineTest, ABadRequestIsRefusedAndNothingIsDelivered) {
  Start();
  EXPECT_THAT(engine_->Submit(Request(1, 0, 5), sink_).status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
  EXPECT_EQ(sink_->Get(1).events, 0);
  EXPECT_EQ(engine_->load().queued_requests, 0);
}

TEST_F(EngineTest, AnIdInUseIsRefused) {
  Start({}, absl::Milliseconds(5));
  ASSERT_OK(engine_->Submit(Request(1, 3, 100), sink_).status);
  EXPECT_THAT(engine_->Submit(Request(1, 3, 5), sink_).status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("id 1")));
  // The same id of another sink is another request.
  auto other = std::make_shared<RecordingSink>();
  EXPECT_OK(engine_->Submit(Request(1, 3, 5), other).status);
  EXPECT_EQ(other->WaitFor(1).ids.size(), 5u);
}

TEST_F(EngineTest, ARequestThatCanNeverFitTheCacheIsRefusedAtOnce) {
  Start({.num_kv_blocks = 2, .block_tokens = 16});
  const SubmitResult result = engine_->Submit(Request(1, 10, 24), sink_);
  EXPECT_THAT(result.status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("at most 32")));
  EXPECT_EQ(result.retry_after, absl::ZeroDuration());
  ASSERT_OK(engine_->Submit(Request(2, 10, 23), sink_).status);
  EXPECT_EQ(sink_->WaitFor(2).ids.size(), 23u);
}

TEST_F(EngineTest, AFullQueueIsRefusedWithAHintAndRecovers) {
  Start({.max_running = 1, .max_queue = 2}, absl::Milliseconds(2));
  ASSERT_OK(engine_->Submit(Request(1, 3, 100), sink_).status);
  ASSERT_TRUE(sink_->WaitForIds(1, 1));
  ASSERT_OK(engine_->Submit(Request(2, 3, 5), sink_).status);
  ASSERT_OK(engine_->Submit(Request(3, 3, 5), sink_).status);
  const SubmitResult refused = engine_->Submit(Request(4, 3, 5), sink_);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status));
  EXPECT_GT(refused.retry_after, absl::ZeroDuration());
  EXPECT_TRUE(sink_->WaitFor(3).done);
  EXPECT_OK(engine_->Submit(Request(4, 3, 5), sink_).status);
}

TEST_F(EngineTest, AbortEndsARunningRequestAndFreesItsBlocks) {
  Start({}, absl::Milliseconds(5));
  ASSERT_OK(engine_->Submit(Request(1, 3, 100), sink_).status);
  ASSERT_TRUE(sink_->WaitForIds(1, 3));
  engine_->Abort(sink_.get(), 1);
  const Recorded recorded = sink_->WaitFor(1, absl::Seconds(1));
  EXPECT_EQ(recorded.last.finish_reason, FinishReason::kCancelled);
  EXPECT_LT(recorded.ids.size(), 100u);
  EXPECT_EQ(engine_->load().used_kv_blocks, 0) << "who hears of the end finds the blocks free";
}

TEST_F(EngineTest, AbortEndsAWaitingRequest) {
  Start({.max_running = 1}, absl::Milliseconds(5));
  ASSERT_OK(engine_->Submit(Request(1, 3, 100), sink_).status);
  ASSERT_OK(engine_->Submit(Request(2, 3, 100), sink_).status);
  ASSERT_TRUE(sink_->WaitForIds(1, 1));
  engine_->Abort(sink_.get(), 2);
  EXPECT_EQ(sink_->WaitFor(2, absl::Seconds(1)).last.finish_reason, FinishReason::kCancelled);
  EXPECT_FALSE(sink_->Get(1).done);
}

TEST_F(EngineTest, AbortOfAnUnknownIdIsIgnored) {
  Start();
  engine_->Abort(sink_.get(), 77);
  ASSERT_OK(engine_->Submit(Request(77, 3, 5), sink_).status);
  EXPECT_EQ(sink_->WaitFor(77).last.finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, NothingArrivesAfterAbortAll) {
  Start({}, absl::Milliseconds(1));
  for (int i = 0; i < 8; ++i) ASSERT_OK(engine_->Submit(Request(i, 3, 100), sink_).status);
  ASSERT_TRUE(sink_->WaitForIds(7, 2));
  engine_->AbortAll(sink_.get());
  const int batches = sink_->batches();
  EXPECT_EQ(IdleLoad().used_kv_blocks, 0);
  EXPECT_EQ(sink_->batches(), batches);
}

TEST_F(EngineTest, TheTimeLimitReturnsWhatIsThere) {
  Start({}, absl::Milliseconds(5));
  GenerationRequest request = Request(1, 3, 100);
  request.stopping.time_limit_ms = 60;
  ASSERT_OK(engine_->Submit(request, sink_).status);
  const Recorded recorded = sink_->WaitFor(1);
  EXPECT_EQ(recorded.last.finish_reason, FinishReason::kTimeLimit);
  EXPECT_GT(recorded.ids.size(), 0u);
  EXPECT_LT(recorded.ids.size(), 100u);
  EXPECT_EQ(recorded.last.usage.completion_tokens, static_cast<int>(recorded.ids.size()));
}

TEST_F(EngineTest, TheDeadlineFailsTheRequestEvenWhileItWaits) {
  Start({.max_running = 1}, absl::Milliseconds(5));
  ASSERT_OK(engine_->Submit(Request(1, 3, 100), sink_).status);
  GenerationRequest request = Request(2, 3, 100);
  request.deadline = absl::Now() + absl::Milliseconds(50);
  ASSERT_OK(engine_->Submit(request, sink_).status);
  EXPECT_THAT(sink_->WaitFor(2).last.error,
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("0 of 100")));
  EXPECT_FALSE(sink_->Get(1).done);
}

TEST_F(EngineTest, ASinkThatLagsPausesItsRequestsOnly) {
  Start({}, absl::Milliseconds(1));
  auto slow = std::make_shared<RecordingSink>();
  slow->ready = false;
  ASSERT_OK(engine_->Submit(Request(1, 3, 10), slow).status);
  ASSERT_OK(engine_->Submit(Request(2, 3, 10), sink_).status);
  EXPECT_TRUE(sink_->WaitFor(2).done);
  EXPECT_EQ(slow->Get(1).events, 0);
  slow->ready = true;
  engine_->Wake();
  EXPECT_EQ(slow->WaitFor(1, absl::Milliseconds(500)).ids.size(), 10u);
}

TEST_F(EngineTest, DrainFinishesWhatRunsAndRefusesTheRest) {
  Start({}, absl::Milliseconds(2));
  ASSERT_OK(engine_->Submit(Request(1, 3, 30), sink_).status);
  engine_->BeginDrain();
  EXPECT_TRUE(absl::IsUnavailable(engine_->Submit(Request(2, 3, 5), sink_).status));
  EXPECT_FALSE(engine_->WaitIdle(absl::Milliseconds(1)));
  EXPECT_TRUE(engine_->WaitIdle(absl::Seconds(20)));
  EXPECT_EQ(sink_->Get(1).ids.size(), 30u);
}

TEST_F(EngineTest, RepeatedPromptsAreServedFromTheCache) {
  Start({.block_tokens = 16});
  ASSERT_OK(engine_->Submit(Request(1, 40, 5), sink_).status);
  EXPECT_EQ(sink_->WaitFor(1).last.usage.cached_prompt_tokens, 0);
  ASSERT_OK(engine_->Submit(Request(2, 40, 5), sink_).status);
  EXPECT_EQ(sink_->WaitFor(2).last.usage.cached_prompt_tokens, 32);
}

TEST_F(EngineTest, StormsOfRequestsAndAbortsLeaveNothingBehind) {
  Start({.num_kv_blocks = 20, .block_tokens = 8, .max_batch_tokens = 40, .max_running = 12});
  std::vector<std::thread> clients;
  clients.reserve(3);
  for (int client = 0; client < 3; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 random(client);
      auto sink = std::make_shared<RecordingSink>();
      for (int i = 0; i < 300; ++i) {
        const int prompt = 1 + random() % 60;
        if (!engine_->Submit(Request(i, prompt, 1 + random() % 60), sink).status.ok()) continue;
        if (random() % 3 == 0) engine_->Abort(sink.get(), random() % (i + 1));
        if (random() % 100 == 0) engine_->AbortAll(sink.get());
        if (random() % 8 == 0) sink->WaitFor(i, absl::Milliseconds(20));
      }
      EXPECT_EQ(sink->events_after_the_last(), 0);
    });
  }
  for (std::thread& client : clients) client.join();
  const EngineLoad load = IdleLoad();
  EXPECT_EQ(load.used_kv_blocks, 0);
  EXPECT_EQ(load.running_requests, 0);
  EXPECT_EQ(load.queued_requests, 0);
  EXPECT_EQ(load.queued_prompt_tokens, 0);
  ASSERT_OK(engine_->Submit(Request(1, 5, 7), sink_).status);
  EXPECT_EQ(sink_->WaitFor(1).ids, Formula(5, 7));
}

}  // namespace
}  // namespace hanlin
