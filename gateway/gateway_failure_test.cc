// The whole gateway when things go wrong: lost and mute workers, a tokenizer that refuses,
// overload, calls that make no sense, the end.
#include <optional>
#include <thread>

#include "gateway/testing/gateway_fixture.h"

namespace hanlin {
namespace {
using ::hanlin::testing::FakeWorker;
using ::hanlin::testing::GatewayTest;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::Stream;
using ::testing::Contains;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

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
  EXPECT_THAT(Generate(request, &response),
              StatusIs(Code::kInvalidArgument, HasSubstr("bad text")));
  EXPECT_EQ(response.choices_size(), 0);
  // The good one was ended, if it had come that far.
  for (int i = 0; i < 400 && workers_[0]->running() > 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(workers_[0]->running(), 0);
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

TEST_F(GatewayTest, BeforeAGroupIsThereEveryCallSaysWhatIsMissing) {
  Start(0, {.workers = Path("nobody")});
  for (int i = 0; i < 500 && Message(gateway_->Serving()).find("group") == std::string::npos; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_THAT(Open(Request())->Finish(),
              StatusIs(Code::kUnavailable, HasSubstr("no worker group is ready")));
  v1::GetModelInfoResponse info;
  grpc::ClientContext info_context, list_context;
  EXPECT_THAT(FromGrpc(stub_->GetModelInfo(&info_context, {}, &info)),
              StatusIs(Code::kUnavailable, HasSubstr("no worker group is ready")));
  v1::ListModelsResponse models;
  EXPECT_OK(FromGrpc(stub_->ListModels(&list_context, {}, &models)));
  EXPECT_TRUE(models.models().empty());
}

TEST_F(GatewayTest, AUnaryCallMovesOnWhenItsGroupDies) {
  Start(2, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  v1::GenerateRequest request;
  request.add_prompts()->set_text("hello");
  request.mutable_parameters()->mutable_stopping()->set_max_new_tokens(3);
  v1::GenerateResponse response;
  absl::Status status;
  std::thread call([&] { status = Generate(request, &response); });
  while (workers_[0]->started() + workers_[1]->started() == 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  const int victim = workers_[0]->started() > 0 ? 0 : 1;
  workers_[1 - victim]->set_silent(false);
  workers_[victim]->Die();
  call.join();
  ASSERT_OK(status);
  ASSERT_EQ(response.choices_size(), 1);
  EXPECT_EQ(response.choices(0).text(), "abc");
}

TEST_F(GatewayTest, UnaryCallsThatCannotBeServedAreNamed) {
  Gateway::Options options;
  options.admission.max_requests = 2;
  Start(1, options);
  ASSERT_TRUE(WaitForServing(true));
  v1::GenerateRequest request;
  v1::GenerateResponse response;
  for (int i = 0; i < 3; ++i) request.add_prompts()->set_text("hello");
  const absl::Status many = Generate(request, &response);
  EXPECT_THAT(many, StatusIs(Code::kResourceExhausted,
                             HasSubstr("the call brings 3 requests, want at most 2 at once")));
  EXPECT_FALSE(RetryAfter(many).has_value()) << "it never fits";
  request.mutable_prompts()->RemoveLast();
  request.set_model("gpt-9");
  EXPECT_THAT(Generate(request, &response), StatusIs(Code::kNotFound, HasSubstr("\"gpt-9\"")));
  EXPECT_EQ(workers_[0]->started(), 0);
  request.clear_model();
  EXPECT_OK(Generate(request, &response));
}

TEST_F(GatewayTest, WhatIsTooLargeForTheWireIsRefusedAndTheNextCallServed) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  auto large = Request();
  large.mutable_prompt()->set_text(std::string((16 << 20) + 1, 'x'));
  EXPECT_THAT(Open(large)->Finish(),
              StatusIs(Code::kResourceExhausted, HasSubstr("larger than max")));
  EXPECT_EQ(workers_[0]->started(), 0);
  ASSERT_OK(Open(Request())->Finish());
  // gRPC closes a connection after too much metadata: that of the caller alone.
  auto running = Open(Request(1000));
  ASSERT_TRUE(running->Read());
  ASSERT_OK_AND_ASSIGN(const auto channel, OpenChannel(gateway_->address()));
  const auto other = v1::TextGenerationService::NewStub(channel);
  Stream stream;
  stream.context.AddMetadata("x-request-id", std::string(20 << 10, 'x'));
  stream.reader = other->StreamGenerate(&stream.context, Request());
  EXPECT_THAT(stream.Finish(), StatusIs(Code::kResourceExhausted, HasSubstr("metadata size")));
  ASSERT_OK(running->Finish());
  EXPECT_EQ(running->text.size(), 1000u);
}

}  // namespace
}  // namespace hanlin
