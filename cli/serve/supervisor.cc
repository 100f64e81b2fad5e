// See supervisor.h.
#include "cli/serve/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "common/flags/flags.h"
#include "common/obs/log.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

using std::chrono::milliseconds;

// A unit that served this long starts with a clean record.
constexpr milliseconds kStable{10000};
constexpr std::string_view kReadyPrefix = "ready ";

// "hanlin-worker: message": how our binaries report why they end.
std::optional<std::string_view> FinalMessage(std::string_view line) {
  if (line.starts_with("cannot execute ")) return line;
  if (!line.starts_with("hanlin-")) return std::nullopt;
  const size_t colon = line.find(": ");
  if (colon == std::string_view::npos || line.find(' ') < colon) return std::nullopt;
  return line.substr(colon + 2);
}

}  // namespace

milliseconds RestartDelay(int failures) {
  return milliseconds(std::min(5000, 100 << std::clamp(failures - 1, 0, 10)));
}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(Options options) {
  ASSIGN_OR_RETURN(NotifySocket notifications, NotifySocket::Create());
  setenv("NOTIFY_SOCKET", notifications.address().c_str(), 1);
  setenv("WATCHDOG_USEC", std::to_string(1000 * options.watchdog.count()).c_str(), 1);
  auto supervisor =
      std::unique_ptr<Supervisor>(new Supervisor(std::move(options), std::move(notifications)));
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a closed stdout must not end the service
  supervisor->signals_ = FileDescriptor(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (supervisor->signals_.get() < 0) return Internal("signalfd: {}", strerror(errno));
  return supervisor;
}

Supervisor::Supervisor(Options options, NotifySocket notifications)
    : options_(std::move(options)), notifications_(std::move(notifications)) {
  for (const UnitPlan& plan : options_.units) {
    Unit unit{.plan = plan};
    for (const ProcessPlan& process : plan.processes) unit.processes.push_back({.plan = process});
    units_.push_back(std::move(unit));
  }
}

Supervisor::~Supervisor() { KillAll(); }

int Supervisor::Run() {
  while (!exit_code_.has_value()) {
    StartDueUnits();
    Poll();
    HandleSignals();
    ReadNotifications();
    KillSilentProcesses();
    for (Unit& unit : units_) {
      for (Process& process : unit.processes) ReadOutput(unit, process);
    }
    ReapUnits();
    AdvanceStop();
  }
  KillAll();
  return *exit_code_;
}

void Supervisor::StartDueUnits() {
  if (stop_phase_ >= 0) return;
  for (Unit& unit : units_) {
    if (unit.state == State::kDown && unit.start_at <= Clock::now()) Start(unit);
  }
}

void Supervisor::Start(Unit& unit) {
  unit.state = State::kStarting;
  unit.was_ready = false;
  for (Process& process : unit.processes) {
    process.last_message.clear();
    process.alive_at.reset();
    absl::StatusOr<ChildProcess> child = ChildProcess::Spawn(process.plan.argv);
    if (!child.ok()) return Finish(kExitFailure, Message(child.status()));
    process.child = std::move(*child);
    Log(LogLevel::kDebug, "process started",
        {{"name", process.plan.name}, {"pid", process.child->pid()}});
  }
}

int Supervisor::PollTimeoutMs() const {
  Clock::time_point next = Clock::now() + std::chrono::seconds(60);
  if (stop_phase_ >= 0) {
    next = std::min(next, kill_at_);
  } else {
    for (const Unit& unit : units_) {
      if (unit.state == State::kDown) next = std::min(next, unit.start_at);
      for (const Process& process : unit.processes) {
        if (process.alive_at) next = std::min(next, *process.alive_at + options_.watchdog);
      }
    }
  }
  const auto left = std::chrono::ceil<milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

void Supervisor::Poll() {
  std::vector<pollfd> fds = {{signals_.get(), POLLIN, 0}, {notifications_.fd(), POLLIN, 0}};
  for (const Unit& unit : units_) {
    for (const Process& process : unit.processes) {
      if (!process.child.has_value()) continue;
      for (int fd : {process.child->stdout_fd(), process.child->stderr_fd()}) {
        if (fd >= 0) fds.push_back({fd, POLLIN, 0});
      }
    }
  }
  poll(fds.data(), fds.size(), PollTimeoutMs());
}

void Supervisor::HandleSignals() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;  // ReapUnits looks at every child anyway
    if (stop_phase_ >= 0) return Finish(kExitFailure, "aborted by a second signal");
    Log(LogLevel::kInfo, "stopping", {{"signal", strsignal(static_cast<int>(info.ssi_signo))}});
    BeginStop(0);
  }
}

void Supervisor::ReadNotifications() {
  notifications_.Read([this](pid_t sender, std::string_view message) {
    if (message != "WATCHDOG=1") return;
    for (Unit& unit : units_) {
      for (Process& process : unit.processes) {
        if (!process.child.has_value() || process.child->pid() != sender) continue;
        process.alive_at = Clock::now();
      }
    }
  });
}

// After ReadNotifications, so that a pause of the supervisor itself does no harm.
void Supervisor::KillSilentProcesses() {
  if (stop_phase_ >= 0) return;
  for (Unit& unit : units_) {
    for (Process& process : unit.processes) {
      if (!process.child.has_value() || !process.alive_at ||
          Clock::now() < *process.alive_at + options_.watchdog) {
        continue;
      }
      Log(LogLevel::kWarning, "process is silent, killing it",
          {{"name", process.plan.name}, {"pid", process.child->pid()}});
      process.child->Signal(SIGKILL);
      process.alive_at.reset();
    }
  }
}

void Supervisor::ReadOutput(Unit& unit, Process& process) {
  if (!process.child.has_value()) return;
  process.child->ReadStdout([&](std::string_view line) {
    if (line.starts_with(kReadyPrefix)) {
      if (&process == &unit.processes.front()) {
        HandleReady(unit, std::string(line.substr(kReadyPrefix.size())));
      }
    } else {
      options_.on_line(process.plan.name, line);
    }
  });
  process.child->ReadStderr([&](std::string_view line) {
    if (const auto message = FinalMessage(line); message.has_value()) {
      process.last_message = *message;
    } else {
      options_.on_line(process.plan.name, line);
    }
  });
}

void Supervisor::HandleReady(Unit& unit, const std::string& address) {
  if (unit.state != State::kStarting) return;
  unit.state = State::kReady;
  unit.was_ready = true;
  unit.ready_at = Clock::now();
  Log(LogLevel::kInfo, "unit ready", {{"unit", unit.plan.name}, {"address", address}});
  if (!unit.plan.is_front || ready_) return;
  ready_ = true;
  std::vector<std::string>& argv = unit.processes.front().plan.argv;
  const auto flag = std::find(argv.begin(), argv.end(), "--address");
  if (flag != argv.end() && flag + 1 != argv.end()) *(flag + 1) = address;
  options_.on_ready(address);
}

void Supervisor::ReapUnits() {
  for (Unit& unit : units_) {
    if (unit.state == State::kDown) continue;
    bool all_ended = true;
    bool any_ended = false;
    for (Process& process : unit.processes) {
      if (!process.child.has_value()) continue;
      const bool ended = process.child->TryReap().has_value();
      any_ended |= ended;
      all_ended &= ended;
    }
    if (any_ended && unit.state != State::kEnding && stop_phase_ < 0) {
      // One life: what is left of the unit goes too.
      unit.state = State::kEnding;
      for (Process& process : unit.processes) {
        if (process.child.has_value()) process.child->Signal(SIGKILL);
      }
    }
    if (all_ended) HandleEnd(unit);
  }
}

void Supervisor::HandleEnd(Unit& unit) {
  unit.state = State::kDown;
  std::optional<int> refusal;
  std::string reason;
  std::vector<std::pair<const Process*, std::string>> ends;
  for (Process& process : unit.processes) {
    if (!process.child.has_value()) continue;
    ReadOutput(unit, process);  // what it wrote last
    const int status = process.child->Reap();
    process.child.reset();
    ends.emplace_back(&process, DescribeWaitStatus(status));
    if (stop_phase_ >= 0 || !WIFEXITED(status) || unit.was_ready) continue;
    const int code = WEXITSTATUS(status);
    if (code != kExitUsage && (ready_ || refusal.has_value())) continue;
    refusal = code == kExitOk ? kExitFailure : code;
    reason = process.last_message.empty() ? fmt::format("{} ended with {} before it was ready",
                                                        process.plan.name, ends.back().second)
                                          : process.last_message;
  }
  if (stop_phase_ >= 0) return;
  // The reason is the caller's to say, once.
  if (refusal.has_value()) return Finish(*refusal, reason);
  for (const auto& [process, how] : ends) {
    Log(LogLevel::kWarning, "process ended",
        {{"name", process->plan.name}, {"how", how}, {"message", process->last_message}});
  }
  const bool stable = unit.was_ready && Clock::now() - unit.ready_at >= kStable;
  unit.failures = stable ? 1 : unit.failures + 1;
  unit.start_at = Clock::now() + RestartDelay(unit.failures);
}

void Supervisor::BeginStop(int phase) {
  stop_phase_ = phase;
  kill_at_ = Clock::now() + options_.stop_timeout;
  for (Unit& unit : units_) {
    if (unit.plan.stop_phase != phase) continue;
    for (Process& process : unit.processes) {
      if (process.child.has_value()) process.child->Signal(SIGTERM);
    }
  }
}

void Supervisor::AdvanceStop() {
  if (stop_phase_ < 0 || exit_code_.has_value()) return;
  const bool time_over = Clock::now() >= kill_at_;
  while (true) {
    bool running = false;
    int last_phase = 0;
    for (Unit& unit : units_) {
      last_phase = std::max(last_phase, unit.plan.stop_phase);
      if (unit.plan.stop_phase != stop_phase_ || unit.state == State::kDown) continue;
      running = true;
      for (Process& process : unit.processes) {
        if (time_over && process.child.has_value()) process.child->Signal(SIGKILL);
      }
    }
    if (running) return;
    if (stop_phase_ == last_phase) return Finish(kExitOk, "");
    BeginStop(stop_phase_ + 1);
  }
}

void Supervisor::KillAll() {
  for (Unit& unit : units_) {
    for (Process& process : unit.processes) {
      if (process.child.has_value()) process.child->Signal(SIGKILL);
    }
  }
  for (Unit& unit : units_) {
    for (Process& process : unit.processes) {
      if (process.child.has_value()) process.child->Reap();
      process.child.reset();
    }
    unit.state = State::kDown;
  }
}

void Supervisor::Finish(int code, std::string error) {
  if (exit_code_.has_value()) return;
  exit_code_ = code;
  error_ = std::move(error);
}

}  // namespace hanlin::cli
