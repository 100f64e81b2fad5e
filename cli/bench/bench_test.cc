// Measurements on a small scale: that they run, that shares lie in range, that percentiles are
// right.
#include "cli/bench/forward_bench.h"
#include "cli/bench/roofline.h"
#include "cli/bench/service_bench.h"
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

TEST(BenchOptionsTest, WhatDoesNotFitIsRefused) {
  EXPECT_THAT(BenchDecode({.preset = "tiny"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tiny")));
  EXPECT_THAT(BenchDecode({.batch = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--batch is 0")));
  EXPECT_THAT(BenchLoad({.target = "h:1", .null = true}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("contradict")));
}

}  // namespace
}  // namespace hanlin::cli
