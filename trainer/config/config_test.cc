// Recipes: values, overrides, and what is refused with which words.
#include "trainer/config/config.h"

#include "common/testing/testing.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

constexpr char kMinimal[] = "model: m\noutput: o\ndata: {train: [a.jsonl, b.csv]}\n";

TEST(TrainConfigTest, DefaultsAreModelScopesPoetryRecipe) {
  ASSERT_OK_AND_ASSIGN(const TrainConfig config, ParseTrainConfig(kMinimal, "r.yaml", {}));
  EXPECT_THAT(config.data.train, ::testing::ElementsAre("a.jsonl", "b.csv"));
  EXPECT_EQ(config.optimizer.lr, 3e-4);
  EXPECT_EQ(config.optimizer.weight_decay, 0.01);
  EXPECT_EQ(config.schedule.type, "noam");
  EXPECT_EQ(config.data.sequence_length, 128);
}

TEST(TrainConfigTest, OverridesWinAndTakeNumbersListsAndText) {
  ASSERT_OK_AND_ASSIGN(
      const TrainConfig config,
      ParseTrainConfig(std::string(kMinimal) + "optimizer: {lr: 1}\n", "r.yaml",
                       {"optimizer.lr=2.5e-4", "data.valid=[v.csv, w.csv]", "data.packing=true",
                        "data.source_suffix=\"\\n\"", "tokenizer="}));
  EXPECT_EQ(config.optimizer.lr, 2.5e-4);
  EXPECT_EQ(config.data.valid.size(), 2u);
  EXPECT_TRUE(config.data.packing);
  EXPECT_EQ(config.data.source_suffix, "\n");
}

TEST(TrainConfigTest, AKeyThatDoesNotExistIsRefusedByNameWithTheNearestOne) {
  const std::string yaml = std::string(kMinimal) + "optimizer:\n  learning: {rate: 1}\n";
  EXPECT_THAT(ParseTrainConfig(yaml, "r.yaml", {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("r.yaml"), HasSubstr("no key 'optimizer.learning.rate'"))));
  EXPECT_THAT(ParseTrainConfig(kMinimal, "r.yaml", {"optimiser.lr=1"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mean 'optimizer.lr'")));
}

TEST(TrainConfigTest, BadValuesSayWhatWasWanted) {
  const std::pair<const char*, const char*> cases[] = {
      {"optimizer.lr=fast", "optimizer.lr: is 'fast', want a number"},
      {"optimizer.lr=nan", "want a number"},
      {"optimizer.lr=-1", "want a number in [0"},
      {"data.packing=1", "want true or false"},
      {"schedule.type=step", "want noam, cosine, linear, constant"},
      {"batch.size=2.5", "want an integer"},
      {"batch.size=[1, 2]", "is a list, want one value"},
      {"data.train=[]", "data.train is empty"},
      {"model=", "model is not set"},
      {"nothing", "want key=value"},
      {"output=", "output is not set"},
      {"run.epochs=0", "run.epochs and run.max_steps are both 0"},
      {"evaluation.patience=1", "evaluation.patience needs data.valid"},
      {"evaluation.metric=rouge-l", "evaluation.metric rouge-l needs evaluation.generate"},
      {"optimizer={lr: 1}", "--set 'optimizer={lr: 1}': a map, want a value or a list"},
      {"data.train=[[a]]", "data.train: holds a list or map"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(ParseTrainConfig(kMinimal, "r.yaml", {text}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)))
        << text;
  }
}

TEST(TrainConfigTest, BrokenYamlNamesFileAndLine) {
  const std::pair<std::string, const char*> cases[] = {
      {"model: m\noutput: [", "r.yaml: line 2: "},
      {"model: m\n  x: : y", "r.yaml: line 2: "},
      {"model: m\n\n\tx: y", "r.yaml: line 3: "},
      {"model: m\nseed:\n", "r.yaml: seed: has no value"},
      {"- 1", "r.yaml: is not a map of keys"},
      {"3", "r.yaml: is not a map of keys"},
      {"a: &b [*b]", "r.yaml: a: holds a list or map"},
      {"a: &b {c: *b}", "r.yaml: "},
      {"[a]: b", "r.yaml: "},
      {std::string(100000, '['), "r.yaml: "},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(ParseTrainConfig(text, "r.yaml", {}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)))
        << text.substr(0, 100);
  }
}

TEST(TrainConfigTest, ABrokenOverrideIsNamedAndNotTheFile) {
  EXPECT_THAT(ParseTrainConfig(kMinimal, "r.yaml", {"batch.size=4", "data.train=[a.jsonl"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--set 'data.train=[a.jsonl'"), Not(HasSubstr("r.yaml")))));
}

TEST(TrainConfigTest, DescribeListsEveryKey) {
  ASSERT_OK_AND_ASSIGN(const TrainConfig config, ParseTrainConfig(kMinimal, "r.yaml", {}));
  EXPECT_THAT(Describe(config), AllOf(HasSubstr("data.train: [a.jsonl, b.csv]\n"),
                                      HasSubstr("optimizer.lr: 0.0003\n")));
}

}  // namespace
}  // namespace hanlin
