// A whole gateway in one process, between a gRPC client and fake workers and a fake tokenizer on
// Unix sockets.
#ifndef HANLIN_GATEWAY_TESTING_GATEWAY_FIXTURE_H_
#define HANLIN_GATEWAY_TESTING_GATEWAY_FIXTURE_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/obs/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/testing/testing.h"
#include "gateway/gateway.h"
#include "gateway/testing/fake_backends.h"
#include "hanlin/v1/text_generation.grpc.pb.h"

namespace hanlin::testing {

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
      const std::string address = Path(fmt::format("w{}", i));
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

  absl::Status Generate(const v1::GenerateRequest& request, v1::GenerateResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    return FromGrpc(stub_->Generate(&context, request, response));
  }

  TempDir dir_;
  std::unique_ptr<MetricsServer> metrics_;
  std::unique_ptr<FakeTokenizer> tokenizer_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<v1::TextGenerationService::Stub> stub_;
};

}  // namespace hanlin::testing

#endif  // HANLIN_GATEWAY_TESTING_GATEWAY_FIXTURE_H_
