// The load client over a whole gateway with fake workers: what it counts, how it paces, when it
// stops.
#include "cli/bench/load_client.h"

#include <algorithm>

#include "gateway/testing/gateway_fixture.h"

namespace hanlin::cli {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

class LoadClientTest : public testing::GatewayTest {
 protected:
  LoadOptions Load(int streams, int total) {
    return {.target = gateway_->address(),
            .requests = {Request(10)},
            .streams = streams,
            .total = total};
  }
};

TEST_F(LoadClientTest, AClosedLoopCountsEveryRequestTokenAndGap) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  ASSERT_OK_AND_ASSIGN(const LoadResult result, RunLoad(Load(4, 12)));
  EXPECT_EQ(result.tokens, 120);
  EXPECT_LE(result.messages, 120);
  EXPECT_EQ(result.whole.size(), 12u);
  EXPECT_EQ(result.first_token.size(), 12u);
  EXPECT_EQ(result.per_token.size(), 12u);
  EXPECT_EQ(result.gap.size(), static_cast<size_t>(result.messages) - 12);
  EXPECT_TRUE(result.errors.empty());
  EXPECT_LE(*std::max_element(result.whole.begin(), result.whole.end()), result.elapsed);
  EXPECT_TRUE(result.traces.empty()) << "only a steady state is traced";
}

TEST_F(LoadClientTest, AnOpenLoopKeepsItsRate) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  LoadOptions options = Load(64, 11);
  options.rate = 50;
  ASSERT_OK_AND_ASSIGN(const LoadResult result, RunLoad(options));
  EXPECT_EQ(result.whole.size(), 11u);
  EXPECT_GE(result.elapsed, 10 / 50.0);
}

TEST_F(LoadClientTest, ASteadyStateLastsAsLongAsWasAskedAndIsTraced) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  LoadOptions options = Load(2, 5);
  options.steady = absl::Milliseconds(200);
  int made = 0;
  options.make_request = [&](int i) {
    EXPECT_EQ(i, made++);
    return Request(1 + i % 7);
  };
  ASSERT_OK_AND_ASSIGN(const LoadResult result, RunLoad(options));
  EXPECT_GE(result.steady_end - result.steady_begin, 0.2);
  EXPECT_EQ(result.traces.size(), static_cast<size_t>(made));
  EXPECT_GE(made, 2 + 5);
  double end = 0;
  for (const RequestTrace& trace : result.traces) {
    EXPECT_TRUE(trace.ok);
    EXPECT_GE(trace.end, end) << "in the order of their ends";
    end = trace.end;
    EXPECT_LE(trace.sent, trace.pieces.front().time);
    EXPECT_LE(trace.pieces.back().time, trace.end);
  }
}

TEST_F(LoadClientTest, FailuresAreCountedByCodeAndAllOfThemAreAnError) {
  Gateway::Options gateway;
  gateway.admission.max_requests = 1;
  Start(1, gateway, {.step = absl::Milliseconds(5)});
  ASSERT_TRUE(WaitForServing(true));
  ASSERT_OK_AND_ASSIGN(const LoadResult result, RunLoad(Load(4, 12)));
  ASSERT_TRUE(result.errors.contains("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(result.errors.size(), 1u);
  EXPECT_EQ(result.errors.at("RESOURCE_EXHAUSTED") + static_cast<int64_t>(result.whole.size()), 12);

  LoadOptions unknown = Load(2, 4);
  unknown.requests[0].set_model("gpt-9");
  EXPECT_THAT(RunLoad(unknown), StatusIs(Code::kNotFound, HasSubstr("gpt-9")));
}

TEST_F(LoadClientTest, TheModelOfTheServiceIsKnown) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  ASSERT_OK_AND_ASSIGN(const auto info, FetchModelInfo(gateway_->address(), ""));
  EXPECT_EQ(info.model(), "fake");
  EXPECT_THAT(FetchModelInfo(Path("nobody"), ""),
              StatusIs(Code::kUnavailable, HasSubstr("nobody")));
}

}  // namespace
}  // namespace hanlin::cli
