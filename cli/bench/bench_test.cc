// Measurements on a small scale: that they run, that shares lie in range, that percentiles are
// right.
#include <algorithm>

#include "cli/bench/allreduce_bench.h"
#include "cli/bench/forward_bench.h"
#include "cli/bench/roofline.h"
#include "cli/bench/serve_bench.h"
#include "cli/bench/service_bench.h"
#include "cli/bench/train_bench.h"
#include "common/testing/testing.h"

namespace hanlin::cli {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

TEST(PercentilesTest, AreNearestRanksInMilliseconds) {
  std::vector<double> seconds;
  for (int i = 100; i >= 1; --i) seconds.push_back(i * 1e-3);
  const Json json = Percentiles(seconds);
  EXPECT_DOUBLE_EQ(json["mean"].get<double>(), 50.5);
  EXPECT_DOUBLE_EQ(json["p50"].get<double>(), 50);
  EXPECT_DOUBLE_EQ(json["p99"].get<double>(), 99);
  EXPECT_DOUBLE_EQ(json["max"].get<double>(), 100);
  EXPECT_TRUE(Percentiles({}).is_null());
}

TEST(RooflineTest, MoreThanNothingIsMeasured) {
  ThreadPool pool(2);
  alignas(64) static std::byte buffer[1 << 16] = {};
  EXPECT_GT(MeasureReadRate(buffer, sizeof buffer, pool), 1e6);
  const auto peak = MeasurePeakFlops(ComputeType::kFloat32, pool);
  EXPECT_GT(peak.value_or(1e10), 1e9);
}

class ForwardBenchTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ForwardBenchTest, ReportsRatesAndTheirShare) {
  std::vector<std::string> cases = hanlin::testing::GoldenCases("hf");
  ASSERT_FALSE(cases.empty());
  const ForwardBenchOptions options{.model = cases[0],
                                    .dtype = GetParam(),
                                    .threads = 1,
                                    .batch = 2,
                                    .context = 5,
                                    .seconds = 0.05};
  ASSERT_OK_AND_ASSIGN(const Json decode, BenchDecode(options));
  EXPECT_GT(decode["gb_per_second"].get<double>(), 0);
  EXPECT_GT(decode["share_of_read_rate"].get<double>(), 0);
  EXPECT_EQ(decode["dtype"], GetParam());
  EXPECT_EQ(decode["batch"], 2);
  ASSERT_OK_AND_ASSIGN(const Json prefill, BenchPrefill(options));
  EXPECT_GT(prefill["tokens_per_second"].get<double>(), 0);
}
INSTANTIATE_TEST_SUITE_P(Types, ForwardBenchTest, ::testing::Values("fp32", "bf16"));

TEST(TrainBenchTest, ReportsTheRateAndItsShare) {
  const std::vector<std::string> cases = hanlin::testing::GoldenCases("hf");
  ASSERT_FALSE(cases.empty());
  TrainBenchOptions options{
      .model = cases[0], .threads = 1, .batch = 2, .context = 8, .accumulate = 2, .seconds = 0.05};
  for (const std::string recompute : {"none", "full"}) {
    options.recompute = recompute;
    ASSERT_OK_AND_ASSIGN(const Json json, BenchTrain(options));
    EXPECT_EQ(json["dtype"], "fp32");
    EXPECT_EQ(json["recompute"], recompute);
    EXPECT_GT(json["tokens_per_second"].get<double>(), 0);
    EXPECT_GT(json.value("mfu", 1.0), 0);
    EXPECT_GT(json["loss"].get<double>(), 0);
  }
  options.context = 1 << 20;
  EXPECT_THAT(BenchTrain(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--context is")));
}

TEST(AllReduceBenchTest, ReportsEveryOperationAndWhatItTakesIn) {
  for (const int ranks : {2, 3}) {
    ASSERT_OK_AND_ASSIGN(const Json json,
                         BenchAllReduce({.ranks = ranks, .size = "40kB", .seconds = 0.02}));
    EXPECT_EQ(json["bytes"], 40000);
    EXPECT_GT(json["read_gb_per_second"].get<double>(), 0);
    for (const char* name : {"all_reduce", "reduce_scatter", "all_gather"}) {
      const Json& part = json[name];
      const double rate = part["gb_per_second"].get<double>();
      EXPECT_NEAR(rate, 40000 / part["us"].get<double>() * 1e-3, 1e-6 * rate);
      const double least = (name == std::string("all_reduce") ? 2.0 : 1.0) * (ranks - 1) / ranks;
      EXPECT_NEAR(part["bus_gb_per_second"].get<double>(), rate * least, 1e-6 * rate);
    }
  }
  for (const auto& [options, message] :
       std::initializer_list<std::pair<AllReduceBenchOptions, const char*>>{
           {{.ranks = 1}, "--ranks is 1"},
           {{.size = "lots"}, "--size is \"lots\""},
           {{.size = "6"}, "want a multiple of 4 bytes"},
           {{.size = "0"}, "want a multiple of 4 bytes"}}) {
    EXPECT_THAT(BenchAllReduce(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
}

TEST(BenchOptionsTest, WhatDoesNotFitIsRefused) {
  EXPECT_THAT(BenchDecode({.preset = "tiny"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tiny")));
  EXPECT_THAT(BenchDecode({.batch = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--batch is 0")));
  EXPECT_THAT(BenchLoad({.target = "h:1", .null = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("contradict")));
}

// One request each: begun before the steady state of [1, 3) s, inside it, and failed at its end.
LoadResult ThreeRequests() {
  return {.errors = {{"UNAVAILABLE", 1}},
          .traces = {{.prompt_tokens = 100,
                      .ok = true,
                      .sent = 0.25,
                      .end = 1.5,
                      .pieces = {{0.5, 1}, {1.0, 1}, {1.5, 2}}},
                     {.prompt_tokens = 12,
                      .ok = true,
                      .sent = 1.5,
                      .end = 3.0,
                      .pieces = {{1.75, 1}, {2.0, 2}, {3.0, 9}}},
                     {.prompt_tokens = 7, .ok = false, .sent = 1.0, .end = 4.5, .pieces = {}}},
          .steady_begin = 1,
          .steady_end = 3};
}

TEST(SteadyStateTest, OnlyWhatHappensInItCounts) {
  const Json json = SummarizeSteadyState(ThreeRequests());
  EXPECT_DOUBLE_EQ(json["steady_seconds"].get<double>(), 2);
  EXPECT_EQ(json["requests"], 1);  // the second ends when the steady state has ended
  EXPECT_DOUBLE_EQ(json["output_tokens_per_second"].get<double>(), (1 + 2 + 1 + 2) / 2.0);
  EXPECT_DOUBLE_EQ(json["prompt_tokens_per_second"].get<double>(), 12 / 2.0);
  EXPECT_DOUBLE_EQ(json["prompt_tokens_per_output"].get<double>(), 12 / 6.0);
  EXPECT_DOUBLE_EQ(json["messages_per_second"].get<double>(), 4 / 2.0);
  EXPECT_DOUBLE_EQ(json["ids_per_message"].get<double>(), 6 / 4.0);
  EXPECT_DOUBLE_EQ(json["ttft_ms"]["max"].get<double>(), 250);
  EXPECT_DOUBLE_EQ(json["e2el_ms"]["max"].get<double>(), 1250);
  EXPECT_DOUBLE_EQ(json["tpot_ms"]["p50"].get<double>(), 1000.0 / 3);
  EXPECT_EQ(json["errors"], Json({{"UNAVAILABLE", 1}}));
}

TEST(SteadyStateTest, AMessageOfSeveralIdsIsOneGap) {
  const Json json = SummarizeSteadyState(ThreeRequests());
  EXPECT_DOUBLE_EQ(json["itl_ms"]["p50"].get<double>(), 500);  // 500, 500, 250
  EXPECT_DOUBLE_EQ(json["itl_ms"]["p99"].get<double>(), 500);
  EXPECT_DOUBLE_EQ(json["itl_p99_over_median"].get<double>(), 1);
}

TEST(SteadyStateTest, TheLongestWaitIsThatOfARequestWithoutAnswer) {
  LoadResult load = ThreeRequests();
  EXPECT_DOUBLE_EQ(SummarizeSteadyState(load)["longest_wait_ms"].get<double>(), 3500);
  load.traces.pop_back();
  EXPECT_DOUBLE_EQ(SummarizeSteadyState(load)["longest_wait_ms"].get<double>(), 1000);
}

TEST(ServeBenchTest, RawRateIsOneStepSharedAndThePrefillOfItsPrompt) {
  const ServeBenchOptions options{.concurrency = 32, .decode_ms = 4, .prefill_ms_per_1k = 10};
  // 125 us of a step and two prompt tokens of 10 us each.
  EXPECT_NEAR(RawTokensPerSecond(options, 2), 1e6 / 145, 1e-6);
}

TEST(ServeBenchTest, RequestsAreMixedAndRepeatable) {
  const ServeBenchOptions options;
  double prompt = 0;
  double output = 0;
  constexpr int kRequests = 2000;
  for (int i = 0; i < kRequests; ++i) {
    const v1::StreamGenerateRequest request = MakeServeRequest(options, 100, i);
    const auto& ids = request.prompt().token_ids().ids();
    EXPECT_TRUE(ids.size() >= 64 && ids.size() <= 448) << ids.size();
    EXPECT_TRUE(std::all_of(ids.begin(), ids.end(), [](int id) { return id >= 0 && id < 100; }));
    const int tokens = request.parameters().stopping().max_new_tokens();
    EXPECT_TRUE(tokens >= 32 && tokens <= 224) << tokens;
    prompt += ids.size();
    output += tokens;
  }
  EXPECT_NEAR(prompt / kRequests, 256, 10);
  EXPECT_NEAR(output / kRequests, 128, 5);
  const std::string request = MakeServeRequest(options, 100, 7).SerializeAsString();
  EXPECT_EQ(request, MakeServeRequest(options, 100, 7).SerializeAsString());
  EXPECT_NE(request, MakeServeRequest(options, 100, 8).SerializeAsString());
  EXPECT_NE(request, MakeServeRequest({.seed = 2}, 100, 7).SerializeAsString());
}

TEST(ServeBenchTest, RawFiguresGoTogether) {
  EXPECT_THAT(BenchServe({.decode_ms = 1}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("go together")));
  EXPECT_THAT(BenchServe({.concurrency = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--concurrency is 0")));
}

}  // namespace
}  // namespace hanlin::cli
