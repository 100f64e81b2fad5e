// See server_process.h.
#include "cli/bench/server_process.h"

#include <poll.h>
#include <signal.h>

#include <chrono>

#include "common/io/data_dir.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

constexpr std::chrono::seconds kStartTimeout{600};  // a large model takes a while to load
constexpr std::chrono::seconds kStopTimeout{20};

void WaitForOutput(const ChildProcess& child) {
  pollfd fds[] = {{child.stdout_fd(), POLLIN, 0}, {child.stderr_fd(), POLLIN, 0}};
  poll(fds, 2, 50);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {
      BinaryDirectory() + "/hanlin", "serve", "--address", "127.0.0.1:0", "--log-level", "warning"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Spawn(argv));
  auto server = std::unique_ptr<ServerProcess>(new ServerProcess(std::move(child)));
  RETURN_IF_ERROR(server->WaitReady());
  server->drain_ = std::jthread([raw = server.get()](const std::stop_token& stop) {
    while (!stop.stop_requested() && raw->child_.stderr_fd() >= 0) {
      WaitForOutput(raw->child_);
      raw->Drain();
    }
  });
  return server;
}

absl::Status ServerProcess::WaitReady() {
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  while (std::chrono::steady_clock::now() < deadline) {
    WaitForOutput(child_);
    Drain();
    if (!address_.empty()) return absl::OkStatus();
    if (const auto status = child_.TryReap(); status.has_value()) {
      Drain();
      return Unavailable("the server ended with {}: {}", DescribeWaitStatus(*status), last_line_);
    }
  }
  return DeadlineExceeded("the server was not ready after {} s", kStartTimeout.count());
}

void ServerProcess::Drain() {
  child_.ReadStdout([this](std::string_view line) {
    constexpr std::string_view kReady = "ready ";
    if (line.starts_with(kReady)) address_ = line.substr(kReady.size());
  });
  child_.ReadStderr([this](std::string_view line) { last_line_ = line; });
}

ServerProcess::~ServerProcess() {
  drain_ = std::jthread();  // joined: the child is ours alone again
  child_.Signal(SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + kStopTimeout;
  while (!child_.TryReap().has_value() && std::chrono::steady_clock::now() < deadline) {
    WaitForOutput(child_);
    Drain();
  }
  child_.Signal(SIGKILL);
  child_.Reap();
}

}  // namespace hanlin::cli
