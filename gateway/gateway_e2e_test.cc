// The whole gateway in one process, between a gRPC client and fake workers and a fake tokenizer on
// Unix sockets: what a client sees when things go well, and when they do not.
#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <thread>

#include "common/obs/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/testing/testing.h"
#include "gateway/gateway.h"
#include "gateway/testing/fake_backends.h"
#include "hanlin/v1/text_generation.grpc.pb.h"

namespace hanlin {
namespace {
using ::hanlin::testing::FakeTokenizer;
using ::hanlin::testing::FakeWorker;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::TempDir;
using ::testing::Contains;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

// One StreamGenerate call.
struct Stream {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::StreamGenerateResponse>> reader;
  std::string text;
  int pieces = 0;
  v1::StreamGenerateResponse last;

  bool Read() {
    v1::StreamGenerateResponse piece;
    if (!reader->Read(&piece)) return false;
    EXPECT_EQ(piece.sequence_number(), pieces++);
    text += piece.text_delta();
    last = piece;
    return true;
  }
  absl::Status Finish() {
    while (Read()) {
    }
    return FromGrpc(reader->Finish());
  }
};

class GatewayTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return "unix:" + dir_.path() + "/" + name; }

  // Starts the gateway before the workers "w0", "w1", … named; waits until it serves.
  void Start(int workers, Gateway::Options options = {}, const FakeWorker::Options& worker = {}) {
    tokenizer_ = std::make_unique<FakeTokenizer>(Path("tokenizer"));
    for (int i = 0; i < workers; ++i) {
      const std::string address = Path("w" + std::to_string(i));
      workers_.push_back(std::make_unique<FakeWorker>(address, worker));
      options.workers += (i > 0 ? "," : "") + address;
    }
    options.address = Path("gateway");
    options.tokenizer = Path("tokenizer");
    ASSERT_OK_AND_ASSIGN(metrics_, MetricsServer::Create(""));
    options.registry = &metrics_->registry();
    ASSERT_OK_AND_ASSIGN(gateway_, Gateway::Create(options));
    ASSERT_OK_AND_ASSIGN(const auto channel, OpenChannel(gateway_->address()));
    stub_ = v1::TextGenerationService::NewStub(channel);
  }
  bool WaitForServing(bool serving) {
    for (int i = 0; i < 2000 && gateway_->Serving().ok() != serving; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    return gateway_->Serving().ok() == serving;
  }
  static v1::StreamGenerateRequest Request(int max_new_tokens = 10) {
    v1::StreamGenerateRequest request;
    request.mutable_prompt()->set_text("hello");
    request.mutable_parameters()->mutable_stopping()->set_max_new_tokens(max_new_tokens);
    return request;
  }
  std::unique_ptr<Stream> Open(const v1::StreamGenerateRequest& request,
                               absl::Duration deadline = absl::Seconds(60)) {
    auto stream = std::make_unique<Stream>();
    stream->context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    stream->reader = stub_->StreamGenerate(&stream->context, request);
    return stream;
  }

  TempDir dir_;
  std::unique_ptr<MetricsServer> metrics_;
  std::unique_ptr<FakeTokenizer> tokenizer_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<v1::TextGenerationService::Stub> stub_;
};

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
  grpc::ClientContext context;
  ASSERT_OK(FromGrpc(stub_->Generate(&context, request, &response)));
  ASSERT_EQ(response.choices_size(), 2);
  EXPECT_EQ(response.choices(0).text(), "helloabcdefghij");
  EXPECT_EQ(response.choices(1).text(), "xabcdefghij");
  EXPECT_EQ(response.choices(1).prompt_index(), 1);
  EXPECT_EQ(response.choices(1).seed(), 7);
  EXPECT_EQ(response.choices(0).prompt_ids_size(), 5);
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

TEST_F(GatewayTest, ADeadlineEndsARequestThatWaitsForALostGroup) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  auto stream = Open(Request(), absl::Seconds(1));
  ASSERT_TRUE(workers_[0]->WaitForStarted(1));
  const absl::Time start = absl::Now();
  workers_[0]->Die();
  const absl::Status ended = stream->Finish();
  EXPECT_TRUE(absl::IsDeadlineExceeded(ended) || absl::IsUnavailable(ended)) << ended;
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
}

TEST_F(GatewayTest, ErrorsOfTheTokenizerReachTheClientAndNoWorker) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  for (const auto& [code, seen] :
       {std::pair{grpc::StatusCode::INVALID_ARGUMENT, Code::kInvalidArgument},
        {grpc::StatusCode::INTERNAL, Code::kInternal},
        {grpc::StatusCode::FAILED_PRECONDITION, Code::kFailedPrecondition}}) {
    tokenizer_->Refuse("hello", grpc::Status(code, "no such text"));
    EXPECT_THAT(Open(Request())->Finish(), StatusIs(seen, HasSubstr("no such text")));
  }
  // An unreachable tokenizer is asked again, and is out until it answers.
  tokenizer_->Refuse("hello", grpc::Status(grpc::StatusCode::UNAVAILABLE, "too busy"));
  EXPECT_THAT(Open(Request())->Finish(), StatusIs(Code::kUnavailable, HasSubstr("too busy")));
  EXPECT_EQ(workers_[0]->started(), 0);
  tokenizer_->Refuse("", grpc::Status::OK);
  ASSERT_TRUE(WaitForServing(true));
  EXPECT_OK(Open(Request())->Finish());
}

TEST_F(GatewayTest, OnePromptThatFailsEndsTheWholeUnaryCall) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  tokenizer_->Refuse("bad", grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "bad text"));
  v1::GenerateRequest request;
  request.add_prompts()->set_text("good");
  request.add_prompts()->set_text("bad");
  v1::GenerateResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
  EXPECT_THAT(FromGrpc(stub_->Generate(&context, request, &response)),
              StatusIs(Code::kInvalidArgument, HasSubstr("bad text")));
  EXPECT_EQ(response.choices_size(), 0);
  // The good one was ended, if it had come that far.
  for (int i = 0; i < 400 && workers_[0]->running() > 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(workers_[0]->running(), 0);
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

TEST_F(GatewayTest, ADeadWorkerEndsItsStreamsAndUntouchedRequestsMoveOn) {
  Start(2);
  ASSERT_TRUE(WaitForServing(true));
  // Both groups are in rotation once each has had a request.
  for (int i = 0; i < 200 && (workers_[0]->started() == 0 || workers_[1]->started() == 0); ++i) {
    ASSERT_OK(Open(Request(1))->Finish());
  }
  auto running = Open(Request(100000));
  ASSERT_TRUE(running->Read());
  const int victim = workers_[0]->running() > 0 ? 0 : 1;
  workers_[0]->set_silent(true);
  workers_[1]->set_silent(true);
  const int before = workers_[victim]->started();
  std::vector<std::unique_ptr<Stream>> untouched;
  while (workers_[victim]->started() == before && untouched.size() < 20) {
    const int total = workers_[0]->started() + workers_[1]->started();
    untouched.push_back(Open(Request(3)));
    while (workers_[0]->started() + workers_[1]->started() == total) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  workers_[1 - victim]->set_silent(false);
  const absl::Time killed = absl::Now();
  workers_[victim]->Die();
  EXPECT_THAT(running->Finish(), StatusIs(Code::kUnavailable, HasSubstr("is gone")));
  EXPECT_LT(absl::Now() - killed, absl::Seconds(2));
  for (const auto& stream : untouched) {
    EXPECT_OK(stream->Finish());
    EXPECT_EQ(stream->text, "abc");
  }
}

TEST_F(GatewayTest, ALoneGroupLeavesRotationAndComesBack) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  workers_[0]->Die();
  ASSERT_TRUE(WaitForServing(false));
  EXPECT_THAT(Open(Request())->Finish(), StatusIs(Code::kUnavailable, HasSubstr("worker group")));
  workers_[0] = nullptr;
  workers_[0] = std::make_unique<FakeWorker>(Path("w0"), FakeWorker::Options{});
  ASSERT_TRUE(WaitForServing(true));
  EXPECT_OK(Open(Request())->Finish());
}

TEST_F(GatewayTest, AMuteWorkerIsTakenOutWithinSeconds) {
  Gateway::Options options;
  options.health.silence_timeout = absl::Seconds(1);
  Start(1, options);
  ASSERT_TRUE(WaitForServing(true));
  auto stream = Open(Request(100000));
  ASSERT_TRUE(stream->Read());
  workers_[0]->set_mute(true);
  const absl::Time muted = absl::Now();
  EXPECT_THAT(stream->Finish(), StatusIs(Code::kUnavailable, ::testing::_));
  EXPECT_LT(absl::Now() - muted, absl::Seconds(5));
}

TEST_F(GatewayTest, OverloadIsRefusedWithARetryHint) {
  Gateway::Options options;
  options.admission.max_requests = 1;
  Start(1, options, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  auto first = Open(Request());
  ASSERT_TRUE(workers_[0]->WaitForStarted(1));
  const absl::Status refused = Open(Request())->Finish();
  EXPECT_THAT(refused, StatusIs(Code::kResourceExhausted, HasSubstr("want at most 1")));
  EXPECT_TRUE(RetryAfter(refused).has_value());
  workers_[0]->set_silent(false);
  EXPECT_OK(first->Finish());
}

TEST_F(GatewayTest, AFullWorkersRefusalIsTriedElsewhereAndThenPassedOn) {
  Start(2, {}, {.full = true});
  ASSERT_TRUE(WaitForServing(true));
  absl::SleepFor(absl::Milliseconds(300));  // Both groups have joined.
  const absl::Status refused = Open(Request())->Finish();
  EXPECT_THAT(refused, StatusIs(Code::kResourceExhausted, HasSubstr("the queue is full")));
  EXPECT_EQ(RetryAfter(refused), absl::Milliseconds(1500));
  EXPECT_EQ(workers_[0]->started(), 1);
  EXPECT_EQ(workers_[1]->started(), 1);
}

TEST_F(GatewayTest, AnotherTokenizersWorkerStaysOutAndIsNamed) {
  Start(1, {}, {.fingerprint = "beef"});
  for (int i = 0; i < 500; ++i) {
    if (Message(gateway_->Serving()).find("beef") != std::string::npos) break;
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_THAT(gateway_->Serving(), StatusIs(Code::kUnavailable, HasSubstr("beef")));
  EXPECT_THAT(Open(Request())->Finish(), StatusIs(Code::kUnavailable, HasSubstr("f00d")));
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

TEST_F(GatewayTest, DrainLetsRunningStreamsEndAndRefusesNewOnes) {
  Start(1, {}, {.step = absl::Milliseconds(20)});
  ASSERT_TRUE(WaitForServing(true));
  auto running = Open(Request(30));
  ASSERT_TRUE(running->Read());
  std::optional<bool> all_ended;
  std::thread drain([&] { all_ended = gateway_->Drain(absl::Seconds(20)); });
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_THAT(Open(Request())->Finish(), StatusIs(Code::kUnavailable, HasSubstr("shutting down")));
  EXPECT_OK(running->Finish());
  EXPECT_EQ(running->text.size(), 30u);
  drain.join();
  EXPECT_EQ(all_ended, true);
}

TEST_F(GatewayTest, DrainCancelsWhatOutlivesItsTimeout) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  auto running = Open(Request());
  ASSERT_TRUE(workers_[0]->WaitForStarted(1));
  EXPECT_FALSE(gateway_->Drain(absl::Milliseconds(100)));
  EXPECT_FALSE(running->Finish().ok());
}

TEST_F(GatewayTest, BadRequestsAreNamedAndModelsListed) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto bad = Request();
  bad.mutable_parameters()->mutable_sampling()->set_top_p(2);
  EXPECT_THAT(Open(bad)->Finish(), StatusIs(Code::kInvalidArgument, HasSubstr("top_p is 2")));
  auto unknown = Request();
  unknown.set_model("gpt-9");
  EXPECT_THAT(Open(unknown)->Finish(), StatusIs(Code::kNotFound, HasSubstr("want \"fake\"")));

  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  ASSERT_OK(FromGrpc(stub_->GetModelInfo(&context, {}, &info)));
  EXPECT_EQ(info.model(), "fake");
  EXPECT_EQ(info.tokenizer_fingerprint(), "f00d");
  EXPECT_EQ(info.ready_groups(), 1);
  EXPECT_THAT(info.not_implemented(), Contains("beam_search"));
}

TEST_F(GatewayTest, InvalidUtf8OnTheWireIsInvalidArgument) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  const std::string wire("\x12\x04\x0a\x02\xff\xfe", 6);  // prompt { text: FF FE }
  grpc::Slice slice(wire);
  grpc::ByteBuffer request(&slice, 1);
  ASSERT_OK_AND_ASSIGN(const auto channel, OpenChannel(gateway_->address()));
  const grpc::internal::RpcMethod method("/hanlin.v1.TextGenerationService/StreamGenerate",
                                         grpc::internal::RpcMethod::SERVER_STREAMING);
  grpc::ClientContext context;
  const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
      grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(channel.get(), method, &context,
                                                                    request));
  EXPECT_THAT(FromGrpc(reader->Finish()), StatusIs(Code::kInvalidArgument, HasSubstr("UTF-8")));
}

}  // namespace
}  // namespace hanlin
