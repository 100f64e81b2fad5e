// The whole gateway when things go well: what a client sees, and what reaches the processes behind.
#include <prometheus/registry.h>

#include "gateway/testing/gateway_fixture.h"

namespace hanlin {
namespace {
using ::hanlin::testing::GatewayTest;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::Stream;
using ::testing::Contains;
using Code = absl::StatusCode;

TEST_F(GatewayTest, StreamsAndUnaryAgree) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto stream = Open(Request());
  ASSERT_OK(stream->Finish());
  EXPECT_EQ(stream->text, "abcdefghij");
  EXPECT_EQ(stream->pieces, 10);
  EXPECT_EQ(stream->last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(stream->last.usage().prompt_tokens(), 5);
  EXPECT_EQ(stream->last.usage().completion_tokens(), 10);
  EXPECT_TRUE(stream->last.has_seed());

  v1::GenerateRequest request;
  request.add_prompts()->set_text("hello");
  request.add_prompts()->mutable_token_ids()->add_ids('x');
  request.mutable_parameters()->set_echo(true);
  request.mutable_parameters()->mutable_sampling()->set_seed(7);
  v1::GenerateResponse response;
  ASSERT_OK(Generate(request, &response));
  ASSERT_EQ(response.choices_size(), 2);
  EXPECT_EQ(response.choices(0).text(), "helloabcdefghij");
  EXPECT_EQ(response.choices(1).text(), "xabcdefghij");
  EXPECT_EQ(response.choices(1).prompt_index(), 1);
  EXPECT_EQ(response.choices(1).seed(), 7);
  EXPECT_EQ(response.choices(0).prompt_ids_size(), 5);
}

// The counters of a family and their labels' values: "OK StreamGenerate 2".
std::vector<std::string> Counters(prometheus::Registry& registry, const std::string& name) {
  std::vector<std::string> lines;
  for (const prometheus::MetricFamily& family : registry.Collect()) {
    if (family.name != name) continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      std::string line;
      for (const auto& label : metric.label) line += label.value + " ";
      lines.push_back(line + fmt::to_string(metric.counter.value));
    }
  }
  return lines;
}

TEST_F(GatewayTest, WhatClientsSawIsCounted) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  ASSERT_OK(Open(Request(4))->Finish());
  ASSERT_OK(Open(Request(6))->Finish());
  EXPECT_FALSE(Open(Request(-1))->Finish().ok());
  auto cancelled = Open(Request(100000));
  ASSERT_TRUE(cancelled->Read());
  cancelled->context.TryCancel();
  EXPECT_FALSE(cancelled->Finish().ok());
  ASSERT_TRUE(workers_[0]->WaitForAborted(1));
  v1::GenerateRequest unary;
  unary.add_prompts()->set_text("hello");
  v1::GenerateResponse response;
  ASSERT_OK(Generate(unary, &response));

  prometheus::Registry& registry = metrics_->registry();
  const auto requests = [&] { return Counters(registry, "hanlin_gateway_requests_total"); };
  const auto all =
      ::testing::UnorderedElementsAre("OK StreamGenerate 2", "INVALID_ARGUMENT StreamGenerate 1",
                                      "CANCELLED StreamGenerate 1", "OK Generate 1");
  // A call is counted a moment after its client has heard of its end.
  for (int i = 0; i < 400 && !::testing::Value(requests(), all); ++i) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_THAT(requests(), all);
  EXPECT_THAT(Counters(registry, "hanlin_gateway_cancellations_total"),
              ::testing::ElementsAre("1"));
  EXPECT_THAT(Counters(registry, "hanlin_gateway_prompt_tokens_total"),
              ::testing::ElementsAre("20"));
  EXPECT_THAT(Counters(registry, "hanlin_gateway_retries_total"), ::testing::ElementsAre("0"));
}

TEST_F(GatewayTest, RequestIdsTravelAllTheWay) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto stream = std::make_unique<Stream>();
  stream->context.AddMetadata("x-request-id", "poem-17");
  stream->reader = stub_->StreamGenerate(&stream->context, Request());
  ASSERT_OK(stream->Finish());
  const auto& metadata = stream->context.GetServerInitialMetadata();
  ASSERT_TRUE(metadata.contains("x-request-id"));
  EXPECT_EQ(metadata.find("x-request-id")->second, "poem-17");
  EXPECT_THAT(tokenizer_->request_ids(), Contains("poem-17"));
  EXPECT_EQ(workers_[0]->requests()[0].request_id(), "poem-17");
}

TEST_F(GatewayTest, AStopStringEndsTheStreamAndAbortsTheWorker) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto request = Request(1000);
  request.mutable_parameters()->mutable_stopping()->add_stop_strings("de");
  auto stream = Open(request);
  ASSERT_OK(stream->Finish());
  EXPECT_EQ(stream->text, "abc");
  EXPECT_EQ(stream->last.stop_string(), "de");
  EXPECT_EQ(stream->last.usage().completion_tokens(), 5);
  EXPECT_TRUE(workers_[0]->WaitForAborted(1));
}

TEST_F(GatewayTest, CancellationReachesTheWorkerAtEveryStage) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  auto waiting = Open(Request(1000));
  ASSERT_TRUE(workers_[0]->WaitForStarted(1));
  waiting->context.TryCancel();
  EXPECT_THAT(waiting->Finish(), StatusIs(Code::kCancelled, ::testing::_));
  EXPECT_TRUE(workers_[0]->WaitForAborted(1));

  workers_[0]->set_silent(false);
  auto running = Open(Request(100000));
  ASSERT_TRUE(running->Read());
  running->context.TryCancel();
  EXPECT_THAT(running->Finish(), StatusIs(Code::kCancelled, ::testing::_));
  EXPECT_TRUE(workers_[0]->WaitForAborted(2));
  EXPECT_EQ(workers_[0]->running(), 0);
}

TEST_F(GatewayTest, DeadlinesArePropagatedAndAbort) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  auto stream = Open(Request(), absl::Milliseconds(500));
  EXPECT_THAT(stream->Finish(), StatusIs(Code::kDeadlineExceeded, ::testing::_));
  EXPECT_TRUE(workers_[0]->WaitForAborted(1));
  const int64_t deadline_us = workers_[0]->requests()[0].deadline_us();
  EXPECT_GT(deadline_us, 0);
  EXPECT_LE(deadline_us, 500'000);
}

TEST_F(GatewayTest, ADeadlineThatPassesInTheTokenizerReachesNoWorker) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  tokenizer_->set_delay(absl::Seconds(5));
  const absl::Time start = absl::Now();
  EXPECT_THAT(Open(Request(), absl::Milliseconds(300))->Finish(),
              StatusIs(Code::kDeadlineExceeded, ::testing::_));
  EXPECT_LT(absl::Now() - start, absl::Seconds(3));
  tokenizer_->set_delay(absl::ZeroDuration());
  ASSERT_OK(Open(Request())->Finish());
  EXPECT_EQ(workers_[0]->started(), 1);
}

TEST_F(GatewayTest, AStopStringOverSeveralMessagesNeverLeaks) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto request = Request(12);
  request.mutable_parameters()->mutable_stopping()->add_stop_strings("defgh");
  request.mutable_parameters()->mutable_stopping()->add_stop_strings("cdex");
  auto stream = Open(request);
  while (stream->Read()) {
    EXPECT_THAT(stream->text, ::testing::AnyOf("a", "ab", "abc")) << "after " << stream->pieces;
  }
  ASSERT_OK(stream->Finish());
  EXPECT_EQ(stream->text, "abc");
  EXPECT_EQ(stream->last.stop_string(), "defgh");
}

TEST_F(GatewayTest, ASlowReaderLosesNothingAndGetsMergedPieces) {
  Start(1, {}, {.step = absl::ZeroDuration()});
  ASSERT_TRUE(WaitForServing(true));
  constexpr int kTokens = 60000;  // Far beyond what fits into the connection's windows.
  auto stream = Open(Request(kTokens));
  ASSERT_TRUE(stream->Read());
  for (int i = 0; i < 1000 && workers_[0]->running() > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  ASSERT_OK(stream->Finish());
  EXPECT_EQ(stream->text.size(), static_cast<size_t>(kTokens));
  EXPECT_LT(stream->pieces, kTokens);
  for (size_t i = 0; i < stream->text.size(); ++i) ASSERT_EQ(stream->text[i], 'a' + i % 26) << i;
}

}  // namespace
}  // namespace hanlin
