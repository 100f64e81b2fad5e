// Rows from every format and what is wrong with bad ones; the golden samples; plans, shares,
// packing, dropped sources; the cache.
#include <nlohmann/json.hpp>
#include <set>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/loader.h"
#include "trainer/data/batches.h"
#include "trainer/data/dataset.h"
#include "trainer/data/feeder.h"
#include "trainer/data/rows.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

absl::StatusOr<std::vector<TextRow>> Parse(std::string_view contents, const std::string& name,
                                           std::vector<std::string>* bad = nullptr) {
  return ParseRows(contents, name, {}, [bad](int64_t line, std::string_view what) -> absl::Status {
    const std::string message = fmt::format("{}: {}", line, what);
    if (bad == nullptr) return InvalidArgument("{}", message);
    bad->push_back(message);
    return absl::OkStatus();
  });
}

TEST(RowsTest, JsonlWithAndWithoutTargets) {
  ASSERT_OK_AND_ASSIGN(
      const auto rows,
      Parse("{\"src_txt\":\"春\",\"tgt_txt\":\"\"}\r\n\n{\"src_txt\":\"a\",\"tgt_txt\":null}",
            "x.jsonl"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].source, "春");
  EXPECT_EQ(rows[0].target, "");  // empty, not absent
  EXPECT_FALSE(rows[1].target.has_value());
  EXPECT_EQ(rows[1].line, 3);
}

TEST(RowsTest, BadJsonlRowsAreReportedWithTheirLine) {
  std::vector<std::string> bad;
  ASSERT_OK_AND_ASSIGN(const auto rows, Parse("{\"src_txt\":1}\n[]\n{\"tgt_txt\":\"x\"}\n{\"src_"
                                              "txt\":\"ok\"}\n{\"src_txt\":\"cut",
                                              "x.jsonl", &bad));
  EXPECT_EQ(rows.size(), 1u);
  EXPECT_THAT(bad, ElementsAre(HasSubstr("1: has a number in column 'src_txt', want text"),
                               HasSubstr("2: is not a JSON object"),
                               HasSubstr("3: has no column 'src_txt'"),
                               HasSubstr("5: is not a JSON object")));
}

TEST(RowsTest, CsvQuotesLineEndsAndByteOrderMark) {
  ASSERT_OK_AND_ASSIGN(const auto rows,
                       Parse("\xef\xbb\xbfid,tgt_txt,src_txt\r\n1,\"a \"\"b\"\"\",\"x\ny\"\n\n"
                             "2,,\"c,d\"",
                             "x.csv"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].source, "x\ny");
  EXPECT_EQ(rows[0].target, "a \"b\"");
  EXPECT_EQ(rows[1].source, "c,d");
  EXPECT_EQ(rows[1].line, 5);
}

TEST(RowsTest, CsvWithoutTheColumnListsWhatThereIs) {
  EXPECT_THAT(Parse("text1,text2\na,b\n", "x.csv"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no column 'src_txt', the header has: text1, text2")));
  std::vector<std::string> bad;
  ASSERT_OK_AND_ASSIGN(const auto rows, Parse("src_txt,b\n1\nx,y\n\"open", "x.csv", &bad));
  EXPECT_EQ(rows.size(), 1u);
  EXPECT_THAT(bad, ElementsAre(HasSubstr("2: has 1 columns, the header has 2"),
                               HasSubstr("4: has a quote that does not end")));
}

TEST(RowsTest, TextLinesAndUnknownEndings) {
  ASSERT_OK_AND_ASSIGN(const auto rows, Parse("one\n\ntwo", "x.txt"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].line, 3);
  EXPECT_THAT(Parse("", "x.parquet"), StatusIs(absl::StatusCode::kInvalidArgument,
                                               HasSubstr("want a file that ends in .jsonl")));
}

// Every stored sample: tokens, labels and masks after padding are what upstream's preprocessor
// builds.
TEST(SamplesTest, GoldenSamples) {
  int checked = 0;
  for (const std::string& directory : testing::GoldenCases("modelscope")) {
    const auto json =
        nlohmann::json::parse(ReadFile(directory + "/expected.json").value(), nullptr, false);
    if (!json.contains("samples")) continue;
    const SampleRules rules = {json["sequence_length"], json["sep_id"], false};
    for (const auto& want : json["samples"]) {
      SampleStore store;
      const bool has_target = want.contains("inputs_len");
      const auto source = want["src"].get<std::vector<int32_t>>();
      store.Add(source,
                has_target ? want["tgt"].get<std::vector<int32_t>>() : std::vector<int32_t>(),
                has_target);
      const uint32_t index[] = {0};
      const TrainBatch batch = MakeBatch(rules, {.full_length = true}, store, index, 1);
      EXPECT_EQ(batch.tokens, want["tokens"].get<std::vector<int32_t>>());
      EXPECT_EQ(batch.labels, want["labels"].get<std::vector<int32_t>>());
      const int prompt = want["prompts_len"];
      for (int t = 0; t < batch.length; ++t) {
        const bool counts =
            has_target ? t >= prompt - 1 && t < want["inputs_len"].get<int>() - 1 : t < prompt;
        EXPECT_EQ(batch.weights[t], counts ? 1.0f : 0.0f) << "sample " << checked << " at " << t;
      }
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

SampleStore Numbered(int count) {
  SampleStore store;
  for (int i = 0; i < count; ++i) {
    const std::vector<int32_t> source(1 + i % 13, i), target(1 + i % 7, 100 + i);
    store.Add(source, target, i % 3 != 0);
  }
  return store;
}

TEST(PlanTest, EverySampleOnceAnEpochInAnOrderOfItsOwn) {
  const SampleStore store = Numbered(103);
  TrainConfig config;
  config.batch.size = 10;
  for (const int64_t bucket : {0, 40}) {
    config.data.bucket = bucket;
    std::vector<SampleIndices> orders;
    for (const int64_t epoch : {0, 1, 0}) {
      SampleIndices all;
      for (const SampleIndices& step : PlanEpoch(config, {}, store, epoch)) {
        EXPECT_LE(step.size(), 10u);
        all.insert(all.end(), step.begin(), step.end());
      }
      EXPECT_EQ(std::set<uint32_t>(all.begin(), all.end()).size(), 103u);
      EXPECT_EQ(all.size(), 103u);
      orders.push_back(all);
    }
    EXPECT_NE(orders[0], orders[1]);
    EXPECT_EQ(orders[0], orders[2]);
  }
}

TEST(PlanTest, TokenBudgetAndBucketsKeepRowsOfALengthTogether) {
  const SampleStore store = Numbered(500);
  TrainConfig config;
  config.batch.tokens = 320;
  config.data.bucket = 500;
  for (const SampleIndices& step : PlanEpoch(config, {}, store, 0)) {
    EXPECT_LE(step.size() * 32, 320u);
    int64_t shortest = 1000, longest = 0;
    for (const uint32_t i : step) {
      shortest = std::min(shortest, InputLength({}, store[i]));
      longest = std::max(longest, InputLength({}, store[i]));
    }
    EXPECT_LE(longest - shortest, 2);
  }
}

TEST(PlanTest, SharesOfAllRanksAreTheStep) {
  const SampleIndices step = {5, 3, 9, 1, 7};
  for (const int size : {1, 2, 3, 8}) {
    SampleIndices joined;
    for (int rank = 0; rank < size; ++rank) {
      const auto share = ShareOf(step, rank, size);
      joined.insert(joined.end(), share.begin(), share.end());
    }
    EXPECT_EQ(joined, step);
  }
}

TEST(FeederTest, GivesThePlansOfTheEpochsFromAnyPlaceOn) {
  const SampleStore store = Numbered(50);
  TrainConfig config;
  config.batch.size = 8;
  config.batch.micro = 3;
  config.data.drop_source = 0.3;
  const auto next = [&](int64_t epoch, int64_t step_in_epoch, int rank, int steps) {
    Feeder feeder({&config, {}, &store, rank, 2, epoch, step_in_epoch});
    std::vector<StepData> result;
    result.reserve(static_cast<size_t>(steps));
    for (int i = 0; i < steps; ++i) result.push_back(feeder.Next());
    return result;
  };
  const std::vector<StepData> all = next(0, 0, 0, 20);
  const std::vector<StepData> other = next(0, 0, 1, 20);
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t epoch = static_cast<int64_t>(i) / 7, step = static_cast<int64_t>(i) % 7;
    EXPECT_EQ(all[i].epoch, epoch);
    EXPECT_EQ(all[i].step_in_epoch, step);
    EXPECT_EQ(all[i].epoch_ends, step == 6);
    EXPECT_EQ(all[i].samples, PlanEpoch(config, {}, store, epoch)[step]);
    double weights = 0;
    for (const StepData* data : {&all[i], &other[i]}) {
      for (const TrainBatch& batch : data->batches) {
        for (const float weight : batch.weights) weights += weight;
      }
    }
    EXPECT_NEAR(weights, 1, 1e-5);  // both replicas together have the mean of the step
    const StepData again = next(epoch, step, 0, 1)[0];
    ASSERT_EQ(again.batches.size(), all[i].batches.size());
    for (size_t b = 0; b < again.batches.size(); ++b) {
      EXPECT_EQ(again.batches[b].tokens, all[i].batches[b].tokens);
      EXPECT_EQ(again.batches[b].first_row, all[i].batches[b].first_row);
    }
  }
}

TEST(FeederTest, MicroBatchesJoinToTheShareAndThereIsAlwaysOne) {
  TrainConfig config;
  config.batch.micro = 2;
  const SampleIndices step = {5, 3, 9, 1, 7};
  EXPECT_EQ(MicroBatches(config, step, 0, 1).size(), 3u);
  EXPECT_EQ(MicroBatches(config, step, 0, 1).back().size(), 1u);
  const auto nothing = MicroBatches(config, step, 0, 8);
  ASSERT_EQ(nothing.size(), 1u);
  EXPECT_TRUE(nothing[0].empty());
  config.batch.micro = 0;
  EXPECT_EQ(MicroBatches(config, step, 1, 2)[0].size(), 3u);
}

TEST(BatchTest, PackingKeepsTokensLabelsWeightsAndResetsPositions) {
  const SampleStore store = Numbered(20);
  const SampleRules rules = {40, 1, false};
  SampleIndices all;
  for (uint32_t i = 0; i < 20; ++i) all.push_back(i);
  const TrainBatch batch = MakeBatch(rules, {.packing = true}, store, all, 0.5f);
  EXPECT_LT(batch.sequences, 12);
  EXPECT_LE(batch.length, 39);
  size_t sample = 0;
  for (int64_t i = 0; i < batch.sequences * batch.length;) {
    const int64_t at = i % batch.length;
    if (batch.document_begin[i] != at) {  // padding
      ++i;
      continue;
    }
    const std::vector<int32_t> stream = Stream(rules, store[sample]);
    const Counted counted = CountedLabels(rules, store[sample]);
    for (int64_t t = 0; t + 1 < static_cast<int64_t>(stream.size()); ++t, ++i) {
      EXPECT_EQ(batch.tokens[i], stream[t]);
      EXPECT_EQ(batch.labels[i], stream[t + 1]);
      EXPECT_EQ(batch.positions[i], t);
      EXPECT_EQ(batch.document_begin[i], at);
      EXPECT_EQ(batch.weights[i], t >= counted.begin && t < counted.end ? 0.5f : 0);
    }
    ++sample;
  }
  EXPECT_EQ(sample, 20u);
}

TEST(BatchTest, LengthStepsPadTheLongestRowButNotBeyondTheContext) {
  const SampleRules rules = {24, 1, false};
  SampleStore store;
  for (const int length : {3, 16, 40}) store.Add(std::vector<int32_t>(length, 5), {}, false);
  const auto length_of = [&](const std::vector<uint32_t>& indices, int64_t step) {
    const BatchOptions options = {.length_step = step};
    const TrainBatch batch = MakeBatch(rules, options, store, indices, 1);
    EXPECT_EQ(batch.length, ShapeOf(rules, options, store, indices).length);
    EXPECT_EQ(batch.tokens.size(), indices.size() * batch.length);
    const auto counted = std::count(batch.weights.begin(), batch.weights.end(), 1.0f);
    EXPECT_EQ(counted, CountLabels(rules, options, store, indices));
    return batch.length;
  };
  EXPECT_EQ(length_of({0}, 1), 3);
  EXPECT_EQ(length_of({0}, 16), 16);
  EXPECT_EQ(length_of({0, 1}, 16), 16);
  EXPECT_EQ(length_of({0, 1}, 10), 20);
  EXPECT_EQ(length_of({1, 2}, 16), 23) << "one less than the context, where rows end";
  TrainConfig config;
  EXPECT_EQ(LengthStep(config), 1);
  config.compute.device = "cuda";
  EXPECT_EQ(LengthStep(config), 16);
}

TEST(BatchTest, DroppedSourcesAreAsOftenAsAskedAndTheSameEveryTime) {
  const SampleStore store = Numbered(3000);
  BatchOptions options = {.drop_source = 0.3, .seed = 4, .epoch = 2};
  int dropped = 0, targets = 0;
  for (uint32_t i = 0; i < 3000; ++i) {
    const SampleView view = TrainedView(options, store, i);
    EXPECT_EQ(view.source.size(), TrainedView(options, store, i).source.size());
    if (view.has_target) {
      ++targets;
      dropped += view.source.empty() ? 1 : 0;
    } else {
      EXPECT_FALSE(view.source.empty());
    }
  }
  EXPECT_NEAR(dropped / double(targets), 0.3, 0.03);
}

TEST(BatchTest, WithoutSamplesThereIsOneMaskedToken) {
  const TrainBatch batch = MakeBatch({}, {}, Numbered(1), {}, 1);
  EXPECT_EQ(batch.sequences, 1);
  EXPECT_THAT(batch.weights, ElementsAre(0.0f));
}

class DataSetTest : public ::testing::Test {
 protected:
  // Loads the files under the default model's tokenizer; messages land in reports_.
  absl::StatusOr<SampleStore> Load(const std::vector<std::string>& files,
                                   const std::string& bad_rows = "fail") {
    DataSetOptions options;
    options.files = files;
    options.rules.bad_rows = bad_rows;
    options.rules.cache = directory_.path() + "/cache";
    options.vocab_size = 8192;
    options.report = [this](const std::string& text) { reports_.push_back(text); };
    ThreadPool pool(3);
    return LoadSamples(options, *tokenizer_, pool);
  }

  testing::TempDir directory_;
  std::vector<std::string> reports_;
  const std::shared_ptr<const Tokenizer> tokenizer_ =
      LoadTokenizer(DefaultModelDirectory().value()).value();
};

TEST_F(DataSetTest, SourceAndTargetAreTokenizedApartAndTheCacheGivesTheSame) {
  const std::string file =
      directory_.Write("a.jsonl", "{\"src_txt\":\"《春望》杜甫\\n\",\"tgt_txt\":\"国破山河在\"}\n");
  ASSERT_OK_AND_ASSIGN(const SampleStore first, Load({file}));
  EXPECT_EQ(std::vector<int32_t>(first[0].source.begin(), first[0].source.end()),
            tokenizer_->EncodePrompt("《春望》杜甫\n")->ids);
  EXPECT_EQ(std::vector<int32_t>(first[0].target.begin(), first[0].target.end()),
            tokenizer_->EncodePrompt("国破山河在")->ids);
  ASSERT_OK_AND_ASSIGN(const SampleStore second, Load({file}));
  EXPECT_THAT(reports_, ElementsAre(HasSubstr("1 samples from the cache")));
  EXPECT_EQ(first.Serialize(), second.Serialize());
}

TEST_F(DataSetTest, ADamagedCacheIsMadeAnew) {
  const std::string file = directory_.Write("a.txt", "春眠不觉晓\n处处闻啼鸟\n");
  ASSERT_OK_AND_ASSIGN(const SampleStore first, Load({file}));
  const auto names = ListDirectory(directory_.path() + "/cache").value();
  ASSERT_EQ(names.size(), 1u);
  std::string bytes = ReadFile(fmt::format("{}/cache/{}", directory_.path(), names[0])).value();
  bytes.pop_back();
  directory_.Write(fmt::format("cache/{}", names[0]), bytes);
  ASSERT_OK_AND_ASSIGN(const SampleStore second, Load({file}));
  EXPECT_THAT(reports_, ElementsAre(HasSubstr("made anew")));
  EXPECT_EQ(second.size(), 2u);
}

TEST_F(DataSetTest, ATokenizerWithMoreIdsThanTheModelIsRefused) {
  DataSetOptions options;
  options.vocab_size = 100;
  ThreadPool pool(1);
  EXPECT_THAT(LoadSamples(options, *tokenizer_, pool),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("8192 ids, the model's vocabulary 100")));
}

TEST_F(DataSetTest, ManyBadRowsAreCountedAfterTheFirstFew) {
  std::string rows = "{\"src_txt\":\"ok\"}\n";
  for (int i = 0; i < 9; ++i) rows += "{\"src_txt\":\"\"}\n";
  ASSERT_OK(Load({directory_.Write("a.jsonl", rows)}, "skip"));
  ASSERT_EQ(reports_.size(), 6u);
  EXPECT_THAT(reports_[4], HasSubstr("a.jsonl:6: the row is empty"));
  EXPECT_THAT(reports_[5], HasSubstr("a.jsonl: 9 rows left out in all"));
}

TEST_F(DataSetTest, BadRowsFailOrAreSkippedByFileAndLine) {
  const std::string file =
      directory_.Write("a.jsonl", "{\"src_txt\":\"ok\"}\n{\"src_txt\":\"\"}\n");
  EXPECT_THAT(Load({file}), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("a.jsonl:2: the row is empty")));
  ASSERT_OK_AND_ASSIGN(const SampleStore store, Load({file}, "skip"));
  EXPECT_EQ(store.size(), 1u);
  EXPECT_THAT(reports_, ElementsAre(HasSubstr("a.jsonl:2: the row is empty; left out")));
  for (const std::string& row : {std::string("{\"src_txt\":\"a\\u0000\"}"),
                                 std::string("{\"src_txt\":\"a\",\"tgt_txt\":\"b\\u0000\"}")}) {
    EXPECT_THAT(Load({directory_.Write("b.jsonl", row)}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("b.jsonl:1: the row cannot be tokenized: ")));
  }
}

TEST_F(DataSetTest, AnEmptyDataSetIsRefused) {
  EXPECT_THAT(Load({directory_.Write("a.txt", "")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no usable row")));
  EXPECT_THAT(Load({directory_.path() + "/none.txt"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.txt")));
}

TEST(PrepareSourceTest, ReplacesEveryOccurrenceThenAppends) {
  TrainConfig::Data rules;
  rules.source_replace_from = "[SEP]";
  rules.source_replace_to = "<sep>";
  rules.source_suffix = "\n";
  EXPECT_EQ(PrepareSource(rules, "a[SEP]b[SEP]"), "a<sep>b<sep>\n");
}

}  // namespace
}  // namespace hanlin
