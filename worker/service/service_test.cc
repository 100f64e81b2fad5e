// The worker's service in this process, spoken to over a Unix socket by the stub that a gateway
// uses.
#include <grpcpp/grpcpp.h>

#include <map>
#include <thread>

#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/testing/testing.h"
#include "hanlin/v1/worker.grpc.pb.h"
#include "worker/engine/null_executor.h"
#include "worker/service/worker_service.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;

ModelConfig TestConfig() {
  ModelConfig config;
  config.vocab_size = 400;
  config.max_positions = 512;
  config.end_token_ids = {1};
  return config;
}

// A gateway's end of a session. Reads what it is asked to; not thread-safe.
class Client {
 public:
  explicit Client(v1::WorkerService::Stub* stub) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    stream_ = stub->Session(&context_);
  }
  void Start(uint64_t id, int prompt_tokens, int max_new_tokens,
             const std::function<void(v1::WorkerRequest&)>& change = {}) {
    v1::SessionRequest message;
    v1::WorkerRequest& request = *message.mutable_start();
    request.set_id(id);
    request.set_tokenizer_fingerprint("f00d");
    for (int i = 0; i < prompt_tokens; ++i) request.add_ids(10 + i);
    request.set_num_prompt_tokens(prompt_tokens);
    request.mutable_sampling()->set_seed(1);
    request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
    if (change) change(request);
    EXPECT_TRUE(stream_->Write(message));
  }
  void Abort(uint64_t id) {
    v1::SessionRequest message;
    message.set_abort(id);
    EXPECT_TRUE(stream_->Write(message));
  }
  // Takes the next message; false at the end of the stream.
  bool Read() {
    v1::SessionResponse message;
    if (!stream_->Read(&message)) return false;
    ++messages;
    if (message.has_load()) loads.push_back(message.load());
    for (const v1::RequestEvent& event : message.events()) {
      EXPECT_FALSE(last.contains(event.id())) << "an event after the last one";
      ids[event.id()].insert(ids[event.id()].end(), event.ids().begin(), event.ids().end());
      if (event.finish_reason() != 0 || event.error_code() != 0) last[event.id()] = event;
    }
    return true;
  }
  // The last event of `id`, reading on until it comes.
  v1::RequestEvent WaitFor(uint64_t id) {
    while (!last.contains(id)) {
      if (!Read()) {
        ADD_FAILURE() << "the stream ended before request " << id;
        return {};
      }
    }
    return last[id];
  }
  void ReadIds(uint64_t id, size_t count) {
    while (ids[id].size() < count && Read()) {
    }
  }
  grpc::Status Finish() {
    stream_->WritesDone();
    while (Read()) {
    }
    return stream_->Finish();
  }
  grpc::Status WaitForEnd() {
    while (Read()) {
    }
    return stream_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

  int messages = 0;
  std::map<uint64_t, std::vector<int32_t>> ids;
  std::map<uint64_t, v1::RequestEvent> last;
  std::vector<v1::WorkerLoad> loads;

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionResponse>> stream_;
};

class ServiceTest : public ::testing::Test {
 protected:
  void Serve(absl::Duration step = absl::ZeroDuration(), Engine::Options options = {},
             WorkerService::Options service_options = {}) {
    options.config = TestConfig();
    options.num_kv_blocks = 1000;
    ASSERT_OK_AND_ASSIGN(
        engine_,
        Engine::Create(
            options,
            std::make_unique<NullExecutor>(NullExecutor::Options{
                .config = TestConfig(), .delay = step, .before_step = [this](const StepPlan&) {
                  return failing_ ? Unavailable("rank 1 is gone") : absl::OkStatus();
                }})));
    service_options.engine = engine_.get();
    service_options.model_name = "test";
    service_options.device = "null";
    service_options.dtype = "fp32";
    service_options.kv_block_tokens = 16;
    service_ = std::make_unique<WorkerService>(service_options);
    ASSERT_OK_AND_ASSIGN(server_, RpcServer::Create({.address = "unix:" + directory_.path() + "/w",
                                                     .services = {service_.get()}}));
    ASSERT_OK_AND_ASSIGN(channel_, OpenChannel(server_->address()));
    stub_ = v1::WorkerService::NewStub(channel_);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
    service_.reset();
    engine_.reset();
  }
  void ExpectNothingRuns() {
    EXPECT_TRUE(engine_->WaitIdle(absl::Seconds(10)));
    for (int i = 0; i < 200 && engine_->load().used_kv_blocks > 0; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    EXPECT_EQ(engine_->load().used_kv_blocks, 0);
  }

  testing::TempDir directory_;
  std::atomic<bool> failing_ = false;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
};

TEST_F(ServiceTest, StreamsTheIdsOfARequestAndItsEnd) {
  Serve();
  Client client(stub_.get());
  client.Start(7, 5, 20, [](v1::WorkerRequest& request) { request.set_logprobs(1); });
  const v1::RequestEvent last = client.WaitFor(7);
  EXPECT_EQ(client.ids[7].size(), 20u);
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.usage().prompt_tokens(), 5);
  EXPECT_EQ(last.usage().completion_tokens(), 20);
  EXPECT_EQ(last.logprobs(0).token().id(), client.ids[7].back());
  EXPECT_EQ(last.logprobs(0).top_size(), 1);
  EXPECT_GT(last.timings().total_us(), 0);
  EXPECT_TRUE(client.Finish().ok());
}

TEST_F(ServiceTest, OneMessageCarriesAStepOfAllRequests) {
  Serve(absl::Milliseconds(5));
  Client client(stub_.get());
  for (uint64_t id = 0; id < 16; ++id) client.Start(id, 3, 20);
  for (uint64_t id = 0; id < 16; ++id) client.WaitFor(id);
  EXPECT_LT(client.messages, 60) << "16 requests of 20 tokens";
}

TEST_F(ServiceTest, ManySessionsGetTheirOwnRequestsOnly) {
  Serve();
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Client client(stub_.get());
      for (uint64_t id = 0; id < 20; ++id) client.Start(id, 3 + i, 30);
      for (uint64_t id = 0; id < 20; ++id) {
        EXPECT_EQ(client.WaitFor(id).usage().prompt_tokens(), 3 + i);
        EXPECT_EQ(client.ids[id].size(), 30u);
      }
      EXPECT_TRUE(client.Finish().ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectNothingRuns();
}

TEST_F(ServiceTest, ABadRequestFailsAloneWithItsCodeAndReason) {
  Serve(absl::Milliseconds(1));
  Client client(stub_.get());
  client.Start(1, 3, 50);
  client.Start(2, 3, 50, [](v1::WorkerRequest& r) { r.mutable_sampling()->set_top_p(1.5f); });
  client.Start(3, 0, 50);
  client.Start(4, 3, 50, [](v1::WorkerRequest& r) { r.set_deadline_us(-5); });
  const v1::RequestEvent bad = client.WaitFor(2);
  EXPECT_EQ(bad.error_code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(bad.error_message(), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(client.WaitFor(3).error_message(), HasSubstr("empty"));
  EXPECT_EQ(client.WaitFor(4).error_code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(client.WaitFor(1).finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(ServiceTest, AFullQueueSaysWhenToComeBack) {
  Serve(absl::Milliseconds(5), {.max_running = 1, .max_queue = 1});
  Client client(stub_.get());
  client.Start(1, 3, 500);
  client.ReadIds(1, 1);
  client.Start(2, 3, 5);
  client.Start(3, 3, 5);
  const v1::RequestEvent refused = client.WaitFor(3);
  EXPECT_EQ(refused.error_code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_GE(refused.retry_after_ms(), 100);
}

TEST_F(ServiceTest, AnotherTokenizerIsRefused) {
  Serve();
  Client client(stub_.get());
  client.Start(1, 3, 5);
  EXPECT_EQ(client.WaitFor(1).error_code(), 0);
  client.Start(2, 3, 5, [](v1::WorkerRequest& r) { r.set_tokenizer_fingerprint("beef"); });
  const v1::RequestEvent refused = client.WaitFor(2);
  EXPECT_EQ(refused.error_code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(refused.error_message(), ::testing::AllOf(HasSubstr("beef"), HasSubstr("f00d")));
}

TEST_F(ServiceTest, AConfiguredFingerprintCountsFromTheStart) {
  Serve({}, {}, {.tokenizer_fingerprint = "abcd"});
  Client client(stub_.get());
  client.Start(1, 3, 5);
  EXPECT_EQ(client.WaitFor(1).error_code(),
            static_cast<int>(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ServiceTest, AbortEndsARequestWithCancelled) {
  Serve(absl::Milliseconds(2));
  Client client(stub_.get());
  client.Start(1, 3, 500);
  client.ReadIds(1, 3);
  client.Abort(1);
  client.Abort(99);
  EXPECT_EQ(client.WaitFor(1).finish_reason(), v1::FINISH_REASON_CANCELLED);
  ExpectNothingRuns();
}

TEST_F(ServiceTest, RequestsOfASessionThatIsGoneAreAborted) {
  Serve(absl::Milliseconds(2));
  {
    Client cancelled(stub_.get());
    cancelled.Start(1, 3, 500);
    cancelled.ReadIds(1, 3);
    cancelled.Cancel();
    EXPECT_FALSE(cancelled.WaitForEnd().ok());
  }
  ExpectNothingRuns();
  Client half_closed(stub_.get());
  half_closed.Start(1, 3, 500);
  half_closed.ReadIds(1, 3);
  EXPECT_TRUE(half_closed.Finish().ok());
  ExpectNothingRuns();
}

TEST_F(ServiceTest, TheLoadComesFirstAndThenTwiceASecond) {
  Serve(absl::Milliseconds(5));
  Client client(stub_.get());
  ASSERT_TRUE(client.Read());
  ASSERT_EQ(client.loads.size(), 1u);
  EXPECT_EQ(client.loads[0].total_kv_blocks(), 1000);
  const absl::Time begin = absl::Now();
  while (client.loads.size() < 3) ASSERT_TRUE(client.Read());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
}

TEST_F(ServiceTest, DescribesTheModelAndTheLoad) {
  Serve();
  grpc::ClientContext info_context;
  v1::GetWorkerInfoResponse info;
  ASSERT_TRUE(stub_->GetWorkerInfo(&info_context, {}, &info).ok());
  EXPECT_EQ(info.model(), "test");
  EXPECT_EQ(info.context_tokens(), 512);
  EXPECT_EQ(info.vocabulary_size(), 400);
  EXPECT_EQ(info.end_token_ids(0), 1);
  EXPECT_EQ(info.total_kv_blocks(), 1000);
  EXPECT_EQ(info.default_sampling().top_p(), 0.9f);
  EXPECT_EQ(info.default_max_new_tokens(), 100);
  grpc::ClientContext load_context;
  v1::GetLoadResponse load;
  ASSERT_TRUE(stub_->GetLoad(&load_context, {}, &load).ok());
  EXPECT_EQ(load.load().total_kv_blocks(), 1000);
}

TEST_F(ServiceTest, AReaderThatLagsLosesNothingAndHoldsNobodyUp) {
  Serve();
  Client slow(stub_.get());
  for (uint64_t id = 0; id < 64; ++id) slow.Start(id, 3, 500);
  Client quick(stub_.get());
  quick.Start(1, 3, 500);
  EXPECT_EQ(quick.WaitFor(1).finish_reason(), v1::FINISH_REASON_LENGTH);
  for (uint64_t id = 0; id < 64; ++id) {
    slow.WaitFor(id);
    EXPECT_EQ(slow.ids[id].size(), 500u);
  }
}

TEST_F(ServiceTest, AReaderThatTakesNothingIsDropped) {
  Serve({}, {}, {.write_timeout = absl::Milliseconds(200)});
  Client stuck(stub_.get());
  // Tens of megabytes: more than the buffers of the connection, which nobody empties.
  for (uint64_t id = 0; id < 1000; ++id) {
    stuck.Start(id, 3, 500, [](v1::WorkerRequest& r) { r.set_logprobs(20); });
  }
  for (int i = 0; i < 500 && engine_->load().steps == 0; ++i)
    absl::SleepFor(absl::Milliseconds(10));
  ASSERT_GT(engine_->load().steps, 0u);
  ExpectNothingRuns();
  EXPECT_EQ(stuck.WaitForEnd().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_LT(stuck.last.size(), 1000u) << "the reader was not slow enough to be dropped";
}

TEST_F(ServiceTest, AFailedGroupEndsItsRequestsAndSessionsWithUnavailable) {
  Serve(absl::Milliseconds(1));
  Client client(stub_.get());
  client.Start(1, 3, 500);
  client.ReadIds(1, 3);
  failing_ = true;
  const v1::RequestEvent last = client.WaitFor(1);
  EXPECT_EQ(last.error_code(), static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_THAT(last.error_message(), HasSubstr("rank 1 is gone"));
  service_->EndSessions(engine_->health());
  const grpc::Status status = client.WaitForEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  Client late(stub_.get());
  EXPECT_EQ(late.WaitForEnd().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace hanlin
