// The engine with real models: a request alone equals the same request among neighbours (law 5),
// whatever the chunks, the preemptions and the prefix hits; the reference continuations come out of
// a crowded engine.
#include <nlohmann/json.hpp>
#include <random>

#include "absl/time/clock.h"
#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "worker/engine/engine.h"
#include "worker/engine/local.h"
#include "worker/engine/model_rank.h"
#include "worker/engine/testing.h"

namespace hanlin {
namespace {

using ::hanlin::testing::Recorded;
using ::hanlin::testing::RecordingSink;
using Ids = std::vector<int32_t>;

std::unique_ptr<ModelRank> Load(const std::string& directory, ComputeType type) {
  auto rank = ModelRank::Create({.source = {.directory = directory}, .type = type, .threads = 2});
  EXPECT_TRUE(rank.ok()) << rank.status();
  return rank.ok() ? *std::move(rank) : nullptr;
}

struct EngineShape {
  int32_t blocks;
  int32_t batch_tokens;
  int32_t running;
};

std::unique_ptr<Engine> StartEngine(ModelRank* rank, const EngineShape& shape) {
  auto engine = Engine::Create({.config = rank->config(),
                                .num_kv_blocks = shape.blocks,
                                .block_tokens = GptModel::block_tokens(),
                                .max_batch_tokens = shape.batch_tokens,
                                .max_running = shape.running,
                                .heartbeat = rank->heartbeat()},
                               rank->MakeExecutor());
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

// A small model of the golden data: many rounds in little time.
std::string SmallModel() {
  std::string best;
  int64_t best_size = std::numeric_limits<int64_t>::max();
  for (const std::string& directory : testing::GoldenCases("modelscope")) {
    const auto config = LoadModelConfig(directory);
    if (!config.ok() || config->num_parameters() >= best_size) continue;
    best = directory;
    best_size = config->num_parameters();
  }
  return best;
}

GenerationRequest RandomRequest(std::mt19937* random, const ModelConfig& config) {
  GenerationRequest request;
  // Few different beginnings, so that prefixes meet.
  const int prompt = 1 + (*random)() % (config.max_positions - 2);
  std::mt19937 content((*random)() % 2);
  for (int i = 0; i < prompt; ++i) request.ids.push_back(content() % config.vocab_size);
  request.num_prompt_tokens = prompt;
  request.sampling.temperature = (*random)() % 3 == 0 ? 0.0f : 1.0f;
  request.sampling.top_k = (*random)() % 2 == 0 ? 0 : 10;
  request.sampling.top_p = 0.95f;
  request.sampling.repetition_penalty = (*random)() % 2 == 0 ? 1.0f : 1.2f;
  request.sampling.seed = (*random)();
  request.stopping.max_new_tokens = 1 + (*random)() % (config.max_positions - prompt);
  request.stopping.min_new_tokens = *request.stopping.max_new_tokens / 2;
  request.logprobs = 2;
  return request;
}

class AloneEqualsCrowdTest : public ::testing::TestWithParam<ComputeType> {};

TEST_P(AloneEqualsCrowdTest, ForRandomNeighboursChunksPreemptionsAndPrefixHits) {
  const std::unique_ptr<ModelRank> rank = Load(SmallModel(), GetParam());
  ASSERT_NE(rank, nullptr);
  const int32_t context_blocks =
      (rank->config().max_positions + GptModel::block_tokens() - 1) / GptModel::block_tokens();
  std::mt19937 random(3);
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 24; ++i) {
    requests.push_back(RandomRequest(&random, rank->config()));
    requests.back().id = i;
  }

  std::vector<Recorded> alone;
  for (const GenerationRequest& request : requests) {
    const auto engine = StartEngine(rank.get(), {context_blocks, 512, 1});
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_OK(engine->Submit(request, sink).status);
    alone.push_back(sink->WaitFor(request.id));
    ASSERT_OK(alone.back().last.error);
  }

  int preemptions = 0;
  int cached = 0;
  for (const EngineShape& shape :
       {EngineShape{4 * context_blocks, 7, 7}, EngineShape{context_blocks + 1, 64, 24},
        EngineShape{20 * context_blocks, 512, 24}}) {
    const auto engine = StartEngine(rank.get(), shape);
    auto sink = std::make_shared<RecordingSink>();
    for (const GenerationRequest& request : requests) {
      ASSERT_OK(engine->Submit(request, sink).status);
    }
    for (const GenerationRequest& request : requests) {
      const Recorded recorded = sink->WaitFor(request.id, absl::Seconds(60));
      const Recorded& expected = alone[request.id];
      ASSERT_EQ(recorded.ids, expected.ids) << "request " << request.id;
      EXPECT_EQ(recorded.last.finish_reason, expected.last.finish_reason);
      for (size_t i = 0; i < recorded.ids.size(); ++i) {
        EXPECT_EQ(recorded.logprobs[i].token.logprob, expected.logprobs[i].token.logprob);
      }
      preemptions += recorded.last.timings.preemptions;
      cached += recorded.last.usage.cached_prompt_tokens;
    }
    EXPECT_EQ(engine->load().used_kv_blocks, 0);
  }
  EXPECT_GT(preemptions, 0) << "the test no longer makes blocks run short";
  EXPECT_GT(cached, 0) << "the test no longer hits prefixes";
}

TEST_P(AloneEqualsCrowdTest, ForARequestResumedAtEveryPoint) {
  const std::unique_ptr<ModelRank> rank = Load(SmallModel(), GetParam());
  ASSERT_NE(rank, nullptr);
  const auto engine = StartEngine(rank.get(), {64, 64, 16});
  auto sink = std::make_shared<RecordingSink>();
  GenerationRequest request;
  request.ids = {5, 9, 2, 40, 11};
  request.num_prompt_tokens = 5;
  request.sampling.seed = 99;
  request.sampling.frequency_penalty = 0.3f;
  request.stopping.max_new_tokens = 20;
  request.stopping.ignore_eos = true;
  ASSERT_OK(engine->Submit(request, sink).status);
  const Ids whole = sink->WaitFor(0).ids;
  ASSERT_EQ(whole.size(), 20u);
  for (size_t done = 1; done < whole.size(); ++done) {
    GenerationRequest resumed = request;
    resumed.id = done;
    resumed.ids.insert(resumed.ids.end(), whole.begin(), whole.begin() + done);
    ASSERT_OK(engine->Submit(resumed, sink).status);
    EXPECT_EQ(sink->WaitFor(done).ids, Ids(whole.begin() + done, whole.end()));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AloneEqualsCrowdTest,
                         ::testing::Values(ComputeType::kFloat32, ComputeType::kBFloat16),
                         [](const auto& info) { return std::string(ToString(info.param)); });

class DefaultModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto text = ReadFile(testing::GoldensDirectory() + "/refmodel/greedy_shared.json");
    ASSERT_OK(text);
    reference_ = nlohmann::json::parse(*text, nullptr, false);
    ASSERT_TRUE(reference_.is_array());
  }
  nlohmann::json reference_;
};

TEST_F(DefaultModelTest, GivesTheReferenceContinuationsSideBySide) {
  ASSERT_OK_AND_ASSIGN(const std::string directory, DefaultModelDirectory());
  const std::unique_ptr<ModelRank> rank = Load(directory, ComputeType::kFloat32);
  ASSERT_NE(rank, nullptr);
  const auto engine = StartEngine(rank.get(), {64, 48, 16});
  auto sink = std::make_shared<RecordingSink>();
  for (size_t i = 0; i < reference_.size(); ++i) {
    GenerationRequest request;
    request.id = i;
    request.ids = reference_[i]["ids"].get<Ids>();
    request.num_prompt_tokens = static_cast<int32_t>(request.ids.size());
    request.sampling.temperature = 0.0f;
    request.stopping.max_new_tokens = static_cast<int32_t>(reference_[i]["greedy"].size());
    ASSERT_OK(engine->Submit(request, sink).status);
  }
  for (size_t i = 0; i < reference_.size(); ++i) {
    EXPECT_EQ(sink->WaitFor(i, absl::Seconds(60)).ids, reference_[i]["greedy"].get<Ids>());
  }
}

TEST_F(DefaultModelTest, ScoresTheReferenceContinuations) {
  ASSERT_OK_AND_ASSIGN(auto model, LocalModel::Create({.scoring = true}));
  EXPECT_EQ(model->compute_type(), ComputeType::kFloat32);
  for (const auto& entry : reference_) {
    Ids ids = entry["ids"].get<Ids>();
    const size_t prompt = ids.size();
    const Ids greedy = entry["greedy"].get<Ids>();
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    ASSERT_OK_AND_ASSIGN(const auto logprobs, model->Score(ids));
    ASSERT_EQ(logprobs.size(), ids.size());
    EXPECT_EQ(logprobs[0], std::nullopt);
    for (size_t i = 0; i < entry["steps"].size(); ++i) {
      EXPECT_NEAR(*logprobs[prompt + i], entry["steps"][i]["top"][0][1].get<double>(), 1e-4);
    }
  }
  EXPECT_TRUE(absl::IsInvalidArgument(model->Score({}).status()));
  const Ids outside = {1 << 20};
  EXPECT_TRUE(absl::IsInvalidArgument(model->Score(outside).status()));
  const Ids too_long(model->config().max_positions + 1, 5);
  EXPECT_TRUE(absl::IsInvalidArgument(model->Score(too_long).status()));
  ASSERT_OK(model->engine());
  EXPECT_TRUE(absl::IsFailedPrecondition(model->Score(Ids{5}).status()));
}

TEST(LocalModel, NamesWhatIsWrong) {
  using ::testing::HasSubstr;
  using testing::StatusIs;
  EXPECT_THAT(LocalModel::Create({.dtype = "int3"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("int3")));
  EXPECT_THAT(LocalModel::Create({.device = "abacus"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("abacus")));
  EXPECT_THAT(LocalModel::Create({.tp = 3}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3")));
  EXPECT_THAT(LocalModel::Create({.directory = "/nowhere"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
}

}  // namespace
}  // namespace hanlin
