// Whole runs of a small model over the default tokenizer: they learn, resume bit by bit, stop when
// told, agree over parallel ranks, and say what is wrong with their input.
#include "trainer/loop/trainer.h"

#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "model/checkpoint/checkpoint.h"
#include "model/train/testing.h"
#include "trainer/log/run_log.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::ReadAll;
using testing::RunGrid;
using testing::StatusIs;

// Keeps what a run said.
class Recorder : public Observer {
 public:
  void OnMessage(const std::string& text) override { messages.push_back(text); }
  void OnStep(const StepReport& report) override { steps.push_back(report); }
  void OnEvaluation(int64_t, const EvaluationResult& result, bool best) override {
    evaluations.push_back({result, best});
  }
  void OnSample(int64_t step, int number, const std::string& prompt,
                const std::string& text) override {
    samples.push_back(fmt::format("{} {} {}|{}", step, number, prompt, text));
  }
  std::vector<std::string> messages, samples;
  std::vector<StepReport> steps;
  std::vector<std::pair<EvaluationResult, bool>> evaluations;
};

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    // A small architecture with the default model's tokenizer; weights come from `init: random`.
    directory_.Write("model/config.json",
                     "{\"model_type\": \"gpt2\", \"vocab_size\": 8192, \"n_embd\": 32, "
                     "\"n_layer\": 2, \"n_head\": 4, \"n_positions\": 64, \"eos_token_id\": 1}");
    const std::string from = DefaultModelDirectory().value();
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      directory_.Write(std::string("model/") + name,
                       ReadFile(fmt::format("{}/{}", from, name)).value());
    }
    std::string rows;
    const char* lines[] = {"床前明月光，疑是地上霜。", "举头望明月，低头思故乡。",
                           "白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。",
                           "春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。"};
    for (int i = 0; i < 24; ++i) {
      rows += fmt::format("{{\"src_txt\":\"第{}首\\n\",\"tgt_txt\":\"{}\"}}\n", i, lines[i % 6]);
    }
    directory_.Write("train.jsonl", rows);
    directory_.Write("valid.jsonl", rows.substr(0, rows.find('\n', 300) + 1));
  }

  TrainConfig Config(const std::string& output, const std::vector<std::string>& overrides = {}) {
    const std::string yaml = fmt::format(
        "model: {0}/model\ninit: random\noutput: {0}/{1}\n"
        "data: {{train: [{0}/train.jsonl], valid: [{0}/valid.jsonl], sequence_length: 24}}\n"
        "batch: {{size: 8, micro: 4}}\noptimizer: {{lr: 3e-3, clip: 1}}\n"
        "schedule: {{type: cosine, warmup: 2}}\nrun: {{epochs: 3}}\n"
        "dropout: {{hidden: 0.1, attention: 0.1, embedding: 0.1}}\nlog: {{every: 1}}\n",
        directory_.path(), output);
    return ParseTrainConfig(yaml, "test", overrides).value();
  }

  struct Result {
    absl::Status status;
    RunSummary summary;
    std::vector<float> parameters;
    Recorder recorder;
  };
  Result Go(const TrainConfig& config, std::function<bool()> stop = nullptr, int threads = 2) {
    Result result;
    ThreadPool pool(threads);
    TrainerOptions options = {.config = config};
    options.stop_requested = std::move(stop);
    options.observer = &result.recorder;
    auto trainer = Trainer::Create(options, pool);
    result.status = trainer.status();
    if (!trainer.ok()) return result;
    auto summary = (*trainer)->Run();
    result.status = summary.status();
    if (summary.ok()) result.summary = *summary;
    result.parameters = ReadAll((*trainer)->model(), TrainState::kParameters);
    return result;
  }

  const testing::TempDir directory_;
};

TEST_F(TrainerTest, LossFallsAndTheBestCheckpointCanBeOpened) {
  const Result result = Go(Config("a", {"run.epochs=12"}));
  ASSERT_OK(result.status);
  EXPECT_EQ(result.summary.state.step, 36);
  EXPECT_EQ(result.summary.end, "finished");
  const auto& steps = result.recorder.steps;
  ASSERT_EQ(steps.size(), 36u);
  EXPECT_NEAR(steps.front().loss, 9.0, 0.3);  // log 8192 = 9.01
  EXPECT_LT(steps.back().loss, steps.front().loss - 3);
  EXPECT_GT(steps.back().tokens_per_second, 0);
  ASSERT_EQ(result.recorder.evaluations.size(), 12u);
  EXPECT_LT(result.recorder.evaluations.back().first.ppl,
            result.recorder.evaluations.front().first.ppl / 2);
  const std::string best = directory_.path() + "/a/best";
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(best));
  EXPECT_OK(Checkpoint::Open(best, config).status());
}

TEST_F(TrainerTest, AStoppedRunGoesOnBitByBit) {
  const Result whole = Go(Config("whole"));
  ASSERT_OK(whole.status);
  for (const char* dtype : {"float32", "bfloat16"}) {
    const TrainConfig config =
        Config(std::string("cut-") + dtype, {std::string("checkpoint.dtype=") + dtype});
    int calls = 0;
    const Result first = Go(config, [&calls] { return ++calls == 4; });
    ASSERT_OK(first.status);
    EXPECT_EQ(first.summary.end, "stopped by a signal");
    EXPECT_EQ(first.summary.state.step, 4);  // in the second epoch of 3 steps
    const Result second = Go(config, nullptr, 1);
    ASSERT_OK(second.status);
    EXPECT_THAT(second.recorder.messages, ::testing::Contains(HasSubstr("going on from")));
    EXPECT_EQ(second.recorder.steps.size(), 5u);
    EXPECT_EQ(second.parameters, whole.parameters);
    EXPECT_EQ(second.summary.state.best_metric, whole.summary.state.best_metric);
    const Result third = Go(config);  // nothing is left to do
    ASSERT_OK(third.status);
    EXPECT_EQ(third.parameters, whole.parameters);
  }
}

TEST_F(TrainerTest, ReplicasTensorRanksAndMicroBatchesAgree) {
  const std::vector<std::string> plain = {"dropout.hidden=0", "dropout.attention=0",
                                          "dropout.embedding=0"};
  const Result alone = Go(Config("alone", plain));
  ASSERT_OK(alone.status);
  for (const auto& [tp, dp, packing] :
       {std::tuple(1, 2, false), {2, 1, false}, {2, 2, true}, {1, 3, false}}) {
    std::vector<std::string> overrides = plain;
    overrides.push_back(fmt::format("data.packing={}", packing));
    overrides.push_back(fmt::format("parallel.tensor={}", tp));
    overrides.push_back(fmt::format("data.cache={}/cache-{}-{}", directory_.path(), tp, dp));
    const TrainConfig config = Config(fmt::format("grid-{}-{}", tp, dp), overrides);
    Recorder recorder;
    RunGrid(tp, dp, [&](Communicator& tensor, Communicator& data, int t, int d) {
      ThreadPool pool(1);
      TrainerOptions options = {.config = config, .tensor = &tensor, .data = &data};
      if (t == 0 && d == 0) options.observer = &recorder;
      ASSERT_OK_AND_ASSIGN(const auto trainer, Trainer::Create(options, pool));
      ASSERT_OK(trainer->Run().status());
    });
    ASSERT_EQ(recorder.steps.size(), alone.recorder.steps.size());
    for (size_t i = 0; i < recorder.steps.size(); ++i) {
      const StepReport& want = alone.recorder.steps[i];
      EXPECT_NEAR(recorder.steps[i].loss, want.loss, 2e-5 * want.loss) << tp << "x" << dp;
      EXPECT_NEAR(recorder.steps[i].gradient_norm, want.gradient_norm, 2e-4 * want.gradient_norm);
    }
  }
}

TEST_F(TrainerTest, SamplesComeAtEveryEvaluationAndShowWhatWasLearned) {
  const std::vector<std::string> overrides = {"run.epochs=40", "evaluation.every=60",
                                              "data.valid=[]", "evaluation.sample_tokens=16",
                                              "evaluation.samples=[\"第1首\\n\", 第2首]"};
  const Result result = Go(Config("samples", overrides));
  ASSERT_OK(result.status);
  ASSERT_EQ(result.recorder.samples.size(), 4u);
  EXPECT_THAT(result.recorder.samples[0], ::testing::StartsWith("60 1 第1首\n|"));
  EXPECT_THAT(result.recorder.samples[3], ::testing::StartsWith("120 2 第2首|"));
  EXPECT_THAT(result.recorder.samples[2], HasSubstr("，"));
  const Result bad = Go(Config("samples-bad", {"evaluation.samples=[\"\"]"}));
  EXPECT_THAT(Message(bad.status), HasSubstr("evaluation.samples: '' has 0 tokens"));
}

TEST_F(TrainerTest, GeneratedTargetsAreScoredAndMayDecideWhichIsBest) {
  const Result result =
      Go(Config("scores", {"run.epochs=40", "evaluation.every=40", "evaluation.generate=6",
                           "evaluation.metric=rouge-l", "evaluation.sample_tokens=20"}));
  ASSERT_OK(result.status);
  ASSERT_EQ(result.recorder.evaluations.size(), 3u);
  double best = -1;
  for (const auto& [evaluation, improved] : result.recorder.evaluations) {
    ASSERT_TRUE(evaluation.texts.has_value());
    EXPECT_EQ(improved, evaluation.texts->rouge_l > best);
    best = std::max(best, evaluation.texts->rouge_l);
  }
  EXPECT_GT(best, 0.1);
  EXPECT_EQ(result.summary.state.best_metric, best);
  directory_.Write("valid.jsonl", "{\"src_txt\":\"春\"}\n");
  EXPECT_THAT(Message(Go(Config("none", {"evaluation.generate=6"})).status),
              HasSubstr("evaluation.generate: no validation sample"));
}

TEST_F(TrainerTest, EvaluationCountsTargetsWhateverTrainingCounts) {
  const std::vector<std::string> one = {"run.max_steps=1", "optimizer.lr=0"};
  std::vector<std::string> all = one;
  all.push_back("data.loss=all");
  const Result target = Go(Config("loss-target", one)), both = Go(Config("loss-all", all));
  ASSERT_OK(target.status);
  ASSERT_OK(both.status);
  const EvaluationResult& a = target.recorder.evaluations[0].first;
  const EvaluationResult& b = both.recorder.evaluations[0].first;
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.ppl, b.ppl);
  EXPECT_NE(target.recorder.steps[0].loss, both.recorder.steps[0].loss);
}

TEST_F(TrainerTest, EarlyStopEndsTheRunAndKeepsTheBest) {
  const Result result =
      Go(Config("early", {"optimizer.lr=0", "evaluation.patience=2", "run.epochs=9"}));
  ASSERT_OK(result.status);
  EXPECT_EQ(result.summary.end, "no better evaluation in 2");
  EXPECT_EQ(result.recorder.evaluations.size(), 3u);
  EXPECT_EQ(result.summary.state.best_step, 3);
  EXPECT_EQ(std::filesystem::read_symlink(directory_.path() + "/early/best"), "step-00000003");
}

TEST_F(TrainerTest, NotANumberStopsWithStepAndSamplesOrIsSkipped) {
  // An absurd rate without clipping blows the weights up within a few steps.
  const std::vector<std::string> overrides = {"optimizer.lr=1000", "optimizer.clip=0",
                                              "schedule.type=constant", "schedule.warmup=0",
                                              "optimizer.weight_decay=1000"};
  const Result stopped = Go(Config("nan", overrides));
  EXPECT_THAT(stopped.status, StatusIs(absl::StatusCode::kAborted,
                                       ::testing::AllOf(HasSubstr("step "), HasSubstr("loss "),
                                                        HasSubstr("samples "))));
  std::vector<std::string> skipping = overrides;
  skipping.push_back("run.on_nan=skip");
  const Result skipped = Go(Config("skip", skipping));
  ASSERT_OK(skipped.status);
  EXPECT_LT(skipped.summary.state.updates, skipped.summary.state.step);
  EXPECT_THAT(skipped.recorder.messages, ::testing::Contains(HasSubstr("skipped")));
}

// The ranks agree on it without a word: none goes on, and none waits for another.
TEST_F(TrainerTest, EveryRankStopsOrSkipsAtTheSameNotANumber) {
  for (const char* on_nan : {"stop", "skip"}) {
    const TrainConfig config = Config(
        fmt::format("nan-grid-{}", on_nan),
        {"optimizer.lr=1000", "optimizer.clip=0", "schedule.type=constant", "schedule.warmup=0",
         "optimizer.weight_decay=1000", "parallel.tensor=2", fmt::format("run.on_nan={}", on_nan)});
    std::mutex mutex;
    std::vector<std::string> ends;
    RunGrid(2, 2, [&](Communicator& tensor, Communicator& data, int, int) {
      ThreadPool pool(1);
      ASSERT_OK_AND_ASSIGN(
          const auto trainer,
          Trainer::Create({.config = config, .tensor = &tensor, .data = &data}, pool));
      const auto summary = trainer->Run();
      const std::lock_guard lock(mutex);
      ends.push_back(summary.ok() ? fmt::format("{} updates", summary->state.updates)
                                  : Message(summary.status()));
    });
    ASSERT_EQ(ends.size(), 4u);
    EXPECT_THAT(ends, ::testing::Each(ends[0]));
    EXPECT_THAT(ends[0], HasSubstr(std::string_view(on_nan) == "stop" ? "loss " : "updates"));
  }
}

TEST_F(TrainerTest, AllMaskedBatchesHaveLossZero) {
  directory_.Write("train.jsonl",
                   "{\"src_txt\":\"白日依山尽，黄河入海流。欲穷千里目，更上一层楼。床前明月光，"
                   "疑是地上霜。举头望明月，低头思故乡。\",\"tgt_txt\":\"春\"}\n");
  const Result result = Go(Config("masked", {"data.sequence_length=8", "run.epochs=2"}));
  ASSERT_OK(result.status);
  for (const StepReport& step : result.recorder.steps) EXPECT_EQ(step.loss, 0.0);
  EXPECT_THAT(result.recorder.messages,
              ::testing::Contains(HasSubstr("1 training samples, 1 of them cut")));
  EXPECT_THAT(result.recorder.messages, ::testing::Contains(HasSubstr("memory in MiB: ")));
}

TEST_F(TrainerTest, BadInputIsNamed) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"data.sequence_length=66"}, "want at most 65: the model has 64 positions"},
      {{"optimizer.freeze=[nothing*]"}, "no tensor is called 'nothing*'"},
      {{"optimizer.freeze=['*']"}, "leaves nothing to train"},
      {{"init=checkpoint"}, "model"},
      {{"model=/nowhere"}, "/nowhere is no model folder"},
      {{"data.source_column=text1"}, "has no column 'text1'"},
      {{"resume=/nowhere"}, "/nowhere"},
      {{"tokenizer=/nowhere"}, "/nowhere"},
      {{"data.valid=[/nowhere.jsonl]"}, "/nowhere.jsonl"},
      {{"output=/dev/null/run"}, "cannot create /dev/null/run"},
  };
  for (const auto& [overrides, message] : cases) {
    const Result result = Go(Config("bad", overrides));
    EXPECT_THAT(Message(result.status), HasSubstr(message));
    EXPECT_FALSE(result.status.ok());
  }
}

TEST_F(TrainerTest, WhatIsMissingIsSaidBeforeDataAreRead) {
  directory_.Write("other/config.json",
                   "{\"model_type\": \"gpt2\", \"vocab_size\": 8192, \"n_embd\": 32, "
                   "\"n_layer\": 1, \"n_head\": 4, \"n_positions\": 64, \"eos_token_id\": 1}");
  const std::pair<std::string, const char*> cases[] = {
      {"init=checkpoint", "has no weights"},
      {"resume=/nowhere", "/nowhere"},
      {fmt::format("resume={}/model", directory_.path()), "model/trainer/state.json"},
      {fmt::format("resume={}/other", directory_.path()), "another architecture: layers 1, want 2"},
  };
  for (const auto& [override_, message] : cases) {
    const Result result = Go(Config("missing", {override_, "data.train=[/nowhere.jsonl]"}));
    EXPECT_FALSE(result.status.ok());
    EXPECT_THAT(Message(result.status), HasSubstr(message));
  }
}

TEST_F(TrainerTest, AModelWithoutAnEndTokenIsRefused) {
  directory_.Write("model/config.json",
                   "{\"model_type\": \"gpt2\", \"vocab_size\": 8192, \"n_embd\": 32, "
                   "\"n_layer\": 2, \"n_head\": 4, \"n_positions\": 64, \"eos_token_id\": []}");
  EXPECT_THAT(Go(Config("no-end")).status,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has no end token")));
}

TEST_F(TrainerTest, ACheckpointOfAnotherArchitectureIsRefusedOnResume) {
  ASSERT_OK(Go(Config("arch", {"run.max_steps=1"})).status);
  directory_.Write("model/config.json",
                   "{\"model_type\": \"gpt2\", \"vocab_size\": 8192, \"n_embd\": 32, "
                   "\"n_layer\": 1, \"n_head\": 4, \"n_positions\": 64, \"eos_token_id\": 1}");
  EXPECT_THAT(Go(Config("arch")).status,
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another architecture")));
}

TEST_F(TrainerTest, ALogThatCannotBeWrittenIsNamed) {
  for (const bool tensorboard : {false, true}) {
    EXPECT_THAT(RunLog::Create("/dev/null/run", tensorboard),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/null/run")));
  }
}

TEST_F(TrainerTest, RunLogWritesEveryEventAsJson) {
  const std::string output = directory_.path() + "/log";
  std::filesystem::create_directories(output);
  {
    ASSERT_OK_AND_ASSIGN(const auto log, RunLog::Create(output, true));
    log->OnMessage("你好");
    log->OnStep({.step = 3, .total_steps = 9, .loss = 2.5});
    log->OnEvaluation(3,
                      {.loss = 1,
                       .ppl = 2.7,
                       .labels = 5,
                       .ppl_modelscope = 8,
                       .texts = TextScores{.bleu_4 = 0.5}},
                      true);
    log->OnSample(3, 1, "床前", "明月光");
  }
  const std::string text = ReadFile(output + "/log.jsonl").value();
  std::vector<nlohmann::json> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    lines.push_back(nlohmann::json::parse(text.substr(begin, end - begin), nullptr, false));
    begin = end + 1;
  }
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["text"], "你好");
  EXPECT_EQ(lines[1]["loss"], 2.5);
  EXPECT_EQ(lines[2]["ppl_modelscope"], 8);
  EXPECT_EQ(lines[2]["bleu-4"], 0.5);
  EXPECT_EQ(lines[2]["best"], true);
  EXPECT_EQ(lines[3]["kind"], "sample");
  EXPECT_EQ(lines[3]["text"], "明月光");
  EXPECT_EQ(ListDirectory(output + "/tensorboard").value().size(), 1u);
}

}  // namespace
}  // namespace hanlin
