// A server that is short of descriptors goes on answering; the longest silent connection makes
// room. The server is a process of its own, so that its limit is not the clients'.
#include "common/rpc/acceptor.h"

#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/testing/testing.h"
#include "hanlin/v1/worker.grpc.pb.h"

namespace hanlin {
namespace {
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

class FakeWorker : public v1::WorkerService::CallbackService {
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// A process with an RpcServer and at most `descriptors` files. Made before this process uses gRPC,
// which does not survive a fork.
class ServerProcess {
 public:
  explicit ServerProcess(rlim_t descriptors) {
    int address_pipe[2];
    int life_pipe[2];
    if (pipe(address_pipe) != 0 || pipe(life_pipe) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      close(life_pipe[1]);
      const rlimit limit = {descriptors, descriptors};
      setrlimit(RLIMIT_NOFILE, &limit);
      FakeWorker service;
      auto server = RpcServer::Create({.address = "127.0.0.1:0", .services = {&service}});
      if (!server.ok()) _exit(1);
      const std::string& address = (*server)->address();
      if (write(address_pipe[1], address.data(), address.size()) < 0) _exit(1);
      char byte;
      [[maybe_unused]] const ssize_t end = read(life_pipe[0], &byte, 1);
      _exit(0);
    }
    close(life_pipe[0]);
    life_ = FileDescriptor(life_pipe[1]);
    char text[64] = {};
    if (read(address_pipe[0], text, sizeof(text) - 1) > 0) address_ = text;
  }
  ~ServerProcess() {
    life_ = FileDescriptor();
    waitpid(pid_, nullptr, 0);
  }
  const std::string& address() const { return address_; }

 private:
  pid_t pid_ = -1;
  std::string address_;
  FileDescriptor life_;  // its end ends the process
};

absl::Status Call(v1::WorkerService::Stub& stub) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
  context.set_wait_for_ready(true);
  v1::GetLoadResponse response;
  return FromGrpc(stub.GetLoad(&context, {}, &response));
}

std::unique_ptr<v1::WorkerService::Stub> NewStub(const std::string& address) {
  return v1::WorkerService::NewStub(OpenChannel(address).value());
}

TEST(AcceptorTest, IdleConnectionsDoNotShutOutNewClients) {
  const ServerProcess server(64);
  ASSERT_THAT(server.address(), HasSubstr("127.0.0.1:"));
  std::vector<FileDescriptor> idle;
  for (int i = 0; i < 200; ++i) {
    ASSERT_OK_AND_ASSIGN(auto socket, ConnectTo(server.address(), absl::Now() + absl::Seconds(5)));
    idle.push_back(std::move(socket));
  }
  const auto first = NewStub(server.address());
  EXPECT_OK(Call(*first));
  // The client that talks is not the one that makes room.
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK_AND_ASSIGN(auto socket, ConnectTo(server.address(), absl::Now() + absl::Seconds(5)));
    idle.push_back(std::move(socket));
    ASSERT_OK(Call(*first));
  }
  EXPECT_OK(Call(*NewStub(server.address())));
}

TEST(AcceptorTest, AddressInUseSaysSo) {
  ASSERT_OK_AND_ASSIGN(const auto first, Acceptor::Create("127.0.0.1:0"));
  EXPECT_THAT(Acceptor::Create(first->address()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(first->address() + ": Address already in use")));
}

TEST(AcceptorTest, KeepsTheHostAsGivenAndNamesThePort) {
  ASSERT_OK_AND_ASSIGN(const auto acceptor, Acceptor::Create("localhost:0"));
  EXPECT_THAT(acceptor->address(), ::testing::MatchesRegex("localhost:[1-9][0-9]*"));
}

}  // namespace
}  // namespace hanlin
