// Status mapping with retry hints, channels, addresses in use, TLS files.
#include <grpcpp/grpcpp.h>

#include "absl/synchronization/notification.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/testing/testing.h"
#include "hanlin/v1/worker.grpc.pb.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::TempDir;
using ::testing::HasSubstr;

class FakeWorker : public v1::WorkerService::CallbackService {
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(
        ToGrpc(WithRetryAfter(ResourceExhausted("queue full"), absl::Milliseconds(1500))));
    return reactor;
  }
};

TEST(RpcStatusTest, RetryHintCrossesTheWire) {
  TempDir dir;
  FakeWorker service;
  ASSERT_OK_AND_ASSIGN(auto server, RpcServer::Create({.address = "unix:" + dir.path() + "/s",
                                                       .services = {&service}}));
  ASSERT_OK_AND_ASSIGN(auto channel, OpenChannel(server->address()));
  auto stub = v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  const absl::Status status = FromGrpc(stub->GetLoad(&context, {}, &response));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, "queue full"));
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(1500));
}

TEST(RpcStatusTest, CodesMapOneToOne) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
    EXPECT_FALSE(RetryAfter(FromGrpc(ToGrpc(status))).has_value());
  }
}

// A call that owns the only reference to its channel.
struct LoneCall {
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  v1::GetLoadRequest request;
  v1::GetLoadResponse response;
};

TEST(RpcChannelTest, ACallbackMayReleaseTheLastChannel) {
  for (int i = 0; i < 50; ++i) {
    absl::Notification ended;
    auto call = std::make_shared<LoneCall>();
    ASSERT_OK_AND_ASSIGN(call->channel, OpenChannel("unix:/nobody/listens/here"));
    v1::WorkerService::NewStub(call->channel)
        ->async()
        ->GetLoad(&call->context, &call->request, &call->response,
                  [call, &ended](const grpc::Status& status) mutable {
                    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
                    call.reset();
                    ended.Notify();
                  });
    call.reset();
    ended.WaitForNotification();
  }
}

TEST(RpcServerTest, AnAddressInUseIsNamed) {
  ASSERT_OK_AND_ASSIGN(auto first, RpcServer::Create({.address = "127.0.0.1:0"}));
  EXPECT_THAT(first->address(), Not(HasSubstr(":0")));
  EXPECT_THAT(RpcServer::Create({.address = first->address()}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(first->address())));
}

TEST(RpcServerTest, BadAddressesAndTlsFilesAreNamed) {
  for (const char* address : {"", "host", "host:", "host:x", "host:70000", "unix:"}) {
    EXPECT_THAT(RpcServer::Create({.address = address}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("want HOST:PORT or")))
        << address;
  }
  TempDir dir;
  const std::string bad = dir.Write("bad.pem", "nonsense");
  EXPECT_THAT(RpcServer::Create({.address = "127.0.0.1:0", .tls = {.certificate_chain = bad}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("both")));
  EXPECT_THAT(RpcServer::Create({.address = "127.0.0.1:0",
                                 .tls = {.certificate_chain = bad, .private_key = bad}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bad.pem")));
  EXPECT_THAT(
      RpcServer::Create({.address = "127.0.0.1:0",
                         .tls = {.certificate_chain = "/nowhere", .private_key = "/nowhere"}}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
}

}  // namespace
}  // namespace hanlin
