// `hanlin launch`: starts a command once per rank on this host with the environment that torchrun
// would set, passes SIGTERM and SIGINT on, and ends all when one fails, naming it.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "cli/command.h"
#include "cli/serve/process.h"
#include "common/flags/flags.h"
#include "common/net/socket.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPoll = std::chrono::milliseconds(20);
// The other ranks notice a loss by themselves and say what it was; after this they are told.
constexpr auto kNoticeTime = std::chrono::seconds(4);
constexpr auto kKillTime = std::chrono::seconds(12);

struct LaunchFlags {
  int processes = 0;
  int port = 0;
  std::vector<std::string> command;
};

volatile sig_atomic_t forwarded_signal = 0;
volatile sig_atomic_t signals_seen = 0;

void OnSignal(int signal_number) {
  forwarded_signal = signal_number;
  signals_seen = signals_seen + 1;
}

absl::StatusOr<int> FreePort() {
  ASSIGN_OR_RETURN(const FileDescriptor listener, ListenOn("127.0.0.1:0"));
  ASSIGN_OR_RETURN(const std::string address, LocalAddress(listener));
  return std::stoi(address.substr(address.rfind(':') + 1));
}

// Replaces this process. `hanlin` means this very program.
[[noreturn]] void Execute(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  if (command[0] == "hanlin") {
    execv("/proc/self/exe", argv.data());
  } else {
    execvp(argv[0], argv.data());
  }
  fmt::print(stderr, "hanlin launch: cannot start {}: {}\n", command[0], std::strerror(errno));
  _exit(127);
}

struct Rank {
  pid_t pid = -1;
  bool running = false;
};

absl::StatusOr<std::vector<Rank>> StartRanks(const LaunchFlags& flags, int port) {
  std::vector<Rank> ranks(flags.processes);
  const pid_t parent = getpid();
  for (int rank = 0; rank < flags.processes; ++rank) {
    const pid_t pid = fork();
    if (pid < 0) return Unavailable("cannot fork rank {}: {}", rank, std::strerror(errno));
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != parent) _exit(1);
      signal(SIGTERM, SIG_DFL);
      signal(SIGINT, SIG_DFL);
      const std::string size = std::to_string(flags.processes), number = std::to_string(rank);
      setenv("RANK", number.c_str(), 1);
      setenv("LOCAL_RANK", number.c_str(), 1);
      setenv("WORLD_SIZE", size.c_str(), 1);
      setenv("LOCAL_WORLD_SIZE", size.c_str(), 1);
      setenv("MASTER_ADDR", "127.0.0.1", 1);
      setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
      unsetenv("TORCHELASTIC_USE_AGENT_STORE");
      Execute(flags.command);
    }
    ranks[rank] = {pid, true};
  }
  return ranks;
}

void SignalAll(const std::vector<Rank>& ranks, int signal_number) {
  for (const Rank& rank : ranks) {
    if (rank.running) kill(rank.pid, signal_number);
  }
}

// Waits for all ranks; returns the exit code of the first that failed, else 0.
int WatchRanks(std::vector<Rank>& ranks) {
  int code = kExitOk, passed_on = 0;
  Clock::time_point failed_at;
  bool told = false, killed = false;
  for (size_t left = ranks.size(); left > 0;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    for (size_t i = 0; pid > 0 && i < ranks.size(); ++i) {
      if (ranks[i].pid != pid) continue;
      ranks[i].running = false;
      --left;
      if (status == 0 || code != kExitOk) continue;
      fmt::print(stderr, "hanlin launch: rank {} of {} ended with {}\n", i, ranks.size(),
                 DescribeWaitStatus(status));
      code = WIFEXITED(status) ? WEXITSTATUS(status) : kExitFailure;
      failed_at = Clock::now();
    }
    if (signals_seen > passed_on) {
      passed_on = signals_seen;
      SignalAll(ranks, forwarded_signal);
    }
    if (code != kExitOk && !told && Clock::now() - failed_at > kNoticeTime) {
      SignalAll(ranks, SIGTERM);
      told = true;
    }
    if (code != kExitOk && !killed && Clock::now() - failed_at > kKillTime) {
      SignalAll(ranks, SIGKILL);
      killed = true;
    }
    if (pid <= 0) std::this_thread::sleep_for(kPoll);
  }
  return code;
}

absl::StatusOr<int> Launch(const LaunchFlags& flags) {
  if (flags.command.empty()) {
    return InvalidArgument("there is no command, want e.g. hanlin train --config recipe.yaml");
  }
  int port = flags.port;
  if (port == 0) {
    ASSIGN_OR_RETURN(port, FreePort());
  }
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  auto ranks = StartRanks(flags, port);
  if (!ranks.ok()) return ranks.status();
  return WatchRanks(*ranks);
}

}  // namespace

void AddLaunch(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<LaunchFlags>();
  CLI::App* launch =
      app.add_subcommand("launch", "Start a command once per rank on this host, as torchrun does");
  launch->add_option("--nproc-per-node", flags->processes, "Number of ranks")
      ->required()
      ->check(CLI::Range(1, 1024));
  launch->add_option("--master-port", flags->port, "Port of rank 0; 0 picks one")
      ->check(CLI::Range(0, 65535));
  launch->prefix_command();
  launch->footer(
      "Example:\n"
      "  hanlin launch --nproc-per-node 4 hanlin train --config recipe.yaml "
      "--set parallel.tensor=2");
  launch->callback([flags, launch, &run] {
    flags->command = launch->remaining();
    run = [flags] {
      const auto code = Launch(*flags);
      return code.ok() ? *code : ReportError("hanlin launch", code.status());
    };
  });
}

}  // namespace hanlin::cli
