// Keeps a set of processes alive: starts them, passes their logs on, starts again what dies, stops
// them in order.
//
// A *unit* is one or several processes with one life, such as the ranks of a worker group: when one
// of them ends, the others are killed and the unit starts again as a whole, after a delay that
// doubles with every failure in a row. A process says that it serves by the line "ready ADDRESS" on
// its stdout; a unit is ready when its first one is.
//
// A process that says that it lives (service_notifier.h) and then falls silent for the watchdog's
// time is killed: it was stopped or hangs.
//
// What cannot get better by itself is no reason to start again: a process that ends with exit code
// 2 before it was ready (bad input), or with any code while the whole has never been ready, ends
// the supervisor with that code.
//
// SIGTERM, SIGINT or SIGHUP stops the units phase by phase, a second one kills them all. One
// thread, one poll loop.
#ifndef HANLIN_CLI_SERVE_SUPERVISOR_H_
#define HANLIN_CLI_SERVE_SUPERVISOR_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/serve/notify_socket.h"
#include "cli/serve/process.h"

namespace hanlin::cli {

struct ProcessPlan {
  std::string name;  // shown in logs: "gateway", "worker-0.1"
  std::vector<std::string> argv;
};

struct UnitPlan {
  std::string name;
  std::vector<ProcessPlan> processes;
  // Units of phase 0 are stopped first; the next phase follows when they have ended.
  int stop_phase = 0;
  // When the unit is first ready, the supervisor is; its "--address" argument then becomes the
  // address it announced, so that a port picked by the system stays the same after a restart.
  bool is_front = false;
};

// The delay before the next start after `failures` failures in a row: 0.1 s, doubling up to 5 s.
std::chrono::milliseconds RestartDelay(int failures);

class Supervisor {
 public:
  struct Options {
    std::vector<UnitPlan> units;  // started in this order, without waiting for one another
    // Called once, when the front unit is first ready.
    std::function<void(const std::string& address)> on_ready;
    // Gets every other line that a process writes.
    std::function<void(const std::string& process, std::string_view line)> on_line;
    // A process that has not ended this long after SIGTERM is killed.
    std::chrono::milliseconds stop_timeout{60000};
    // Longest silence of a process that said it lives.
    std::chrono::milliseconds watchdog{10000};
  };

  // Blocks SIGTERM, SIGINT, SIGHUP and SIGCHLD for the process and sets NOTIFY_SOCKET and
  // WATCHDOG_USEC for its children; call it before any thread is made.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(Options options);
  ~Supervisor();

  // Runs until stopped; the exit code: 0 after a drain, 1 after a second signal, else that of the
  // process that cannot start. All children have ended when it returns.
  int Run();
  // Why Run did not return 0; empty when it did.
  const std::string& error() const { return error_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { kDown, kStarting, kReady, kEnding };
  struct Process {
    ProcessPlan plan;
    std::optional<ChildProcess> child;
    std::string last_message;                   // last line of the form "hanlin-NAME: message"
    std::optional<Clock::time_point> alive_at;  // when it last said that it lives
  };
  struct Unit {
    UnitPlan plan;
    std::vector<Process> processes;
    State state = State::kDown;
    bool was_ready = false;  // in its present life
    int failures = 0;        // in a row
    Clock::time_point start_at;
    Clock::time_point ready_at;
  };

  Supervisor(Options options, NotifySocket notifications);

  void StartDueUnits();
  void Start(Unit& unit);
  void Poll();
  int PollTimeoutMs() const;
  void HandleSignals();
  void ReadOutput(Unit& unit, Process& process);
  void ReadNotifications();
  void KillSilentProcesses();
  void HandleReady(Unit& unit, const std::string& address);
  void ReapUnits();
  void HandleEnd(Unit& unit);
  void BeginStop(int phase);
  void AdvanceStop();
  void KillAll();
  void Finish(int code, std::string error);

  Options options_;
  FileDescriptor signals_;
  NotifySocket notifications_;
  std::vector<Unit> units_;
  bool ready_ = false;         // the front unit has been ready
  int stop_phase_ = -1;        // phase being stopped; -1 = not stopping
  Clock::time_point kill_at_;  // when the phase's time is over
  std::optional<int> exit_code_;
  std::string error_;
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_SERVE_SUPERVISOR_H_
