// Status mapping with retry hints, addresses in use, health, shutdown.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <csignal>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown.h"
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

TEST(ShutdownSignalTest, FirstSignalNotifies) {
  ShutdownSignal shutdown;
  EXPECT_FALSE(shutdown.WaitFor(absl::Milliseconds(10)));
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(shutdown.WaitFor(absl::Seconds(5)));
}

TEST(ShutdownSignalDeathTest, SecondSignalEndsTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        kill(getpid(), SIGTERM);
        shutdown.Wait();
        absl::SleepFor(absl::Milliseconds(300));
        kill(getpid(), SIGINT);
        sleep(10);
      },
      ::testing::ExitedWithCode(1), "second signal");
}

}  // namespace
}  // namespace hanlin
