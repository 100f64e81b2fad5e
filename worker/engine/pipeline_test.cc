// Two steps in flight: a fake device with a KV cache of its own checks that every step feeds and
// finds the right ids, whatever ends, is aborted or is preempted while a step that holds it runs.
#include <deque>
#include <map>
#include <random>

#include "absl/time/clock.h"
#include "common/testing/testing.h"
#include "worker/engine/engine.h"
#include "worker/engine/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Recorded;
using ::hanlin::testing::RecordingSink;

constexpr int32_t kVocabulary = 1000;
constexpr int32_t kBlockTokens = 16;

// The id at a position of the text that begins with `first`.
int32_t IdAt(int32_t first, int32_t position) {
  return position == 0 ? first : (first * 31 + position * 17) % (kVocabulary - 1) + 1;
}

class FakeDevice : public Executor {
 public:
  explicit FakeDevice(std::atomic<int>* fed_on_device) : fed_on_device_(*fed_on_device) {}

  int max_in_flight() const override { return 2; }

  absl::Status Begin(const StepPlan& plan) override {
    EXPECT_LT(in_flight_.size(), 2u);
    std::vector<int32_t> draws;
    for (const StepSequence& sequence : plan.sequences) Run(plan, sequence, &draws);
    for (size_t row = 0; row < plan.samples.size(); ++row) {
      const SampleRow& sample = plan.samples[row];
      const auto known = static_cast<int32_t>(sample.ids.size());
      EXPECT_TRUE(known == sample.position || known + 1 == sample.position);
      if (HasPenalties(sample.request->sampling)) {
        EXPECT_EQ(known, sample.position);
      }
    }
    EXPECT_EQ(draws.size(), plan.samples.size());
    last_draws_ = draws;
    in_flight_.push_back(std::move(draws));
    return absl::OkStatus();
  }

  absl::Status Finish(StepOutput* output) override {
    output->tokens.clear();
    for (const int32_t id : in_flight_.front()) output->tokens.push_back({.id = id});
    in_flight_.pop_front();
    return absl::OkStatus();
  }

 private:
  void Run(const StepPlan& plan, const StepSequence& sequence, std::vector<int32_t>* draws) {
    const auto slot = [&](int32_t position) -> int32_t& {
      const int32_t block = plan.block_table[sequence.first_block + position / kBlockTokens];
      return kv_[block * kBlockTokens + position % kBlockTokens];
    };
    const int32_t end = sequence.context_tokens + sequence.num_tokens;
    for (int32_t i = 0; i < sequence.num_tokens; ++i) {
      int32_t id = plan.tokens[sequence.first_token + i];
      if (id < 0) {
        ++fed_on_device_;
        ASSERT_LT(-1 - id, std::ssize(last_draws_));
        id = last_draws_[-1 - id];
      }
      slot(sequence.context_tokens + i) = id;
    }
    for (int32_t position = 0; position < end; ++position) {
      ASSERT_EQ(slot(position), IdAt(slot(0), position)) << "at " << position << " of " << end;
    }
    const int32_t last_row = sequence.first_token + sequence.num_tokens - 1;
    if (std::ranges::count(plan.logit_rows, last_row) > 0) draws->push_back(IdAt(slot(0), end));
  }

  std::atomic<int>& fed_on_device_;
  std::map<int32_t, int32_t> kv_;  // by block and slot
  std::vector<int32_t> last_draws_;
  std::deque<std::vector<int32_t>> in_flight_;
};

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = config.head_dim = 8;
  config.num_layers = config.num_heads = 1;
  config.ffn_size = 8;
  config.max_positions = 256;
  return config;
}

GenerationRequest Request(uint64_t id, int32_t prompt, int32_t max_new_tokens) {
  GenerationRequest request;
  request.id = id;
  for (int32_t i = 0; i < prompt; ++i) {
    request.ids.push_back(IdAt(static_cast<int32_t>(id % 50), i));
  }
  request.num_prompt_tokens = prompt;
  request.stopping.max_new_tokens = max_new_tokens;
  return request;
}

class PipelineTest : public ::testing::Test {
 protected:
  std::unique_ptr<Engine> Start(int32_t blocks, int32_t batch_tokens) {
    auto engine = Engine::Create({.config = SmallConfig(),
                                  .num_kv_blocks = blocks,
                                  .max_batch_tokens = batch_tokens,
                                  .max_running = std::min(batch_tokens, 32)},
                                 std::make_unique<FakeDevice>(&fed_on_device_));
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  std::atomic<int> fed_on_device_ = 0;
};

TEST_F(PipelineTest, IdsOfTheStepInFlightAreFedOnTheDevice) {
  const auto engine = Start(64, 64);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_OK(engine->Submit(Request(7, 20, 40), sink).status);
  const Recorded got = sink->WaitFor(7);
  ASSERT_EQ(got.ids.size(), 40u);
  for (int32_t i = 0; i < 40; ++i) EXPECT_EQ(got.ids[i], IdAt(7, 20 + i));
  EXPECT_EQ(fed_on_device_, 39);
}

TEST_F(PipelineTest, NothingRunsBeyondTheLength) {
  const auto engine = Start(64, 64);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_OK(engine->Submit(Request(7, 5, 1), sink).status);
  EXPECT_EQ(sink->WaitFor(7).ids.size(), 1u);
  EXPECT_EQ(fed_on_device_, 0);
}

TEST_F(PipelineTest, PenaltiesWaitForTheDrawsTheyLookAt) {
  const auto engine = Start(64, 64);
  auto sink = std::make_shared<RecordingSink>();
  GenerationRequest request = Request(7, 5, 20);
  request.sampling.repetition_penalty = 1.5f;
  ASSERT_OK(engine->Submit(request, sink).status);
  EXPECT_EQ(sink->WaitFor(7).ids.size(), 20u);
  EXPECT_EQ(fed_on_device_, 0);
}

TEST_F(PipelineTest, StopsAbortsPreemptionsAndPrefixHitsKeepEveryTextRight) {
  struct Shape {
    int32_t blocks, batch_tokens;
  };
  for (const Shape shape : {Shape{1000, 256}, Shape{40, 64}, Shape{17, 32}}) {
    const auto engine = Start(shape.blocks, shape.batch_tokens);
    auto sink = std::make_shared<RecordingSink>();
    std::mt19937 random(shape.blocks);
    std::vector<GenerationRequest> requests;
    for (uint64_t id = 0; id < 120; ++id) {
      GenerationRequest request =
          Request(id, 1 + random() % 150, 1 + static_cast<int32_t>(random() % 80));
      if (id % 3 == 0) {
        request.stopping.stop_ids = {
            IdAt(request.ids[0], request.num_prompt_tokens + static_cast<int32_t>(random() % 30))};
      }
      if (id % 11 == 0) request.sampling.presence_penalty = 0.5f;
      requests.push_back(request);
      ASSERT_OK(engine->Submit(request, sink).status);
      if (id % 7 == 0) engine->Abort(sink.get(), id / 2);
    }
    for (const GenerationRequest& request : requests) {
      const Recorded got = sink->WaitFor(request.id);
      ASSERT_TRUE(got.done) << "request " << request.id;
      ASSERT_OK(got.last.error);
      for (size_t i = 0; i < got.ids.size(); ++i) {
        EXPECT_EQ(got.ids[i],
                  IdAt(request.ids[0], request.num_prompt_tokens + static_cast<int32_t>(i)));
      }
      if (got.last.finish_reason == FinishReason::kLength) {
        EXPECT_EQ(std::ssize(got.ids), *request.stopping.max_new_tokens);
      }
    }
    EXPECT_EQ(sink->events_after_the_last(), 0);
  }
  EXPECT_GT(fed_on_device_, 100);
}

}  // namespace
}  // namespace hanlin
