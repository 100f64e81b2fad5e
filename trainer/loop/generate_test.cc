// Generation from a model in training: what it stops at, and that ranks and batches change nothing.
#include "trainer/loop/generate.h"

#include <algorithm>
#include <numeric>

#include "model/train/testing.h"

namespace hanlin {
namespace {

using Ids = std::vector<int32_t>;
using testing::RunGrid;
using testing::SmallConfig;

const std::vector<Ids> kPrompts = {{3, 7, 20}, {1}, {5, 6, 7, 8, 9, 10}, {40, 2}, {11, 47, 30}};

std::unique_ptr<TrainModel> Make(TrainModelOptions options, ThreadPool& pool) {
  options.config = SmallConfig();
  auto model = MakeCpuTrainModel(options, pool).value();
  EXPECT_OK(LoadParameters(*Checkpoint::Random(options.config, 3), *model));
  // Larger weights than at the beginning of training, so that logits differ by more than rounding.
  std::vector<float> parameters = testing::ReadAll(*model, TrainState::kParameters);
  for (float& value : parameters) value *= 8;
  EXPECT_OK(model->WriteState(TrainState::kParameters, 0, parameters));
  return model;
}

std::vector<Ids> Sampled(TrainModel& model, int64_t batch, float temperature, int64_t tokens = 9) {
  GenerateOptions options = {.max_tokens = tokens, .end_token = -1, .batch = batch};
  options.sampling.temperature = temperature;
  options.sampling.seed = 5;
  return Generate(model, kPrompts, options).value();
}

TEST(GenerateTest, GreedyIsTheLargestLogitEveryTime) {
  ThreadPool pool(2);
  const auto model = Make({}, pool);
  const std::vector<Ids> results = Sampled(*model, 2, 0);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    ASSERT_EQ(results[i].size(), 9u);
    TrainBatch batch = {.sequences = 1, .length = 0};
    batch.tokens = kPrompts[i];
    for (const int32_t id : results[i]) {
      batch.length = static_cast<int64_t>(batch.tokens.size());
      batch.labels.assign(batch.length, 0);
      batch.weights.assign(batch.length, 0);
      batch.positions.resize(batch.length);
      std::iota(batch.positions.begin(), batch.positions.end(), 0);
      std::vector<float> logits(SmallConfig().vocab_size);
      ASSERT_OK(model->Logits(batch, std::vector<int64_t>{batch.length - 1}, logits));
      EXPECT_EQ(id, std::max_element(logits.begin(), logits.end()) - logits.begin());
      batch.tokens.push_back(id);
    }
  }
}

TEST(GenerateTest, BatchesAndRanksChangeNothing) {
  for (const float temperature : {0.0f, 1.0f}) {
    ThreadPool pool(2);
    const std::vector<Ids> want = Sampled(*Make({}, pool), 5, temperature);
    EXPECT_EQ(Sampled(*Make({}, pool), 1, temperature), want);
    for (const auto& [tp, dp] : {std::pair(2, 1), {1, 3}, {2, 2}}) {
      RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int, int) {
        ThreadPool own(1);
        const auto model = Make({.tensor = &tensor, .data = &data}, own);
        EXPECT_EQ(Sampled(*model, 2, temperature), want);
      });
    }
  }
}

TEST(GenerateTest, EndsAtTheEndTokenAndAtTheLastPosition) {
  ThreadPool pool(1);
  const auto model = Make({}, pool);
  const std::vector<Ids> whole = Sampled(*model, 8, 1, 1000);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    EXPECT_EQ(kPrompts[i].size() + whole[i].size(), SmallConfig().max_positions + 1u);
  }
  GenerateOptions options = {.max_tokens = 1000, .end_token = whole[1][4], .batch = 8};
  options.sampling.seed = 5;
  ASSERT_OK_AND_ASSIGN(const auto cut, Generate(*model, kPrompts, options));
  const auto first = std::find(whole[1].begin(), whole[1].end(), whole[1][4]);
  EXPECT_EQ(cut[1], Ids(whole[1].begin(), first));
}

TEST(GenerateTest, APromptThatDoesNotFitIsNamed) {
  ThreadPool pool(1);
  const auto model = Make({}, pool);
  for (const Ids& prompt : {Ids(), Ids(41, 1)}) {
    EXPECT_THAT(Generate(*model, std::vector<Ids>{{1}, prompt}, {}).status(),
                testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                  ::testing::HasSubstr("prompt 1 has")));
  }
}

}  // namespace
}  // namespace hanlin
