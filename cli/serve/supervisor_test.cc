// The supervisor over shell scripts: what is passed on, what is started again, what ends it, how it
// stops. It runs in a process of its own, as in life, because it owns signals and children.
#include "cli/serve/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "cli/serve/run_directory.h"
#include "common/host/service_notifier.h"
#include "common/testing/testing.h"

namespace hanlin::cli {
namespace {
using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{20000};

UnitPlan Script(const std::string& name, const std::string& script, int phase = 0,
                bool front = false) {
  return {.name = name,
          .processes = {{name, {"/bin/sh", "-c", script, "sh", "--address", "h:0"}}},
          .stop_phase = phase,
          .is_front = front};
}

bool Alive(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  stat >> number >> name >> state;
  return !state.empty() && state != "Z" && state != "X";
}

// A supervisor in a child process; its callbacks come out as lines "ready ADDRESS", "line PROCESS
// TEXT", "error TEXT".
class Supervised {
 public:
  explicit Supervised(std::vector<UnitPlan> units, milliseconds stop_timeout = milliseconds(10000),
                      milliseconds watchdog = milliseconds(10000)) {
    int fds[2];
    EXPECT_EQ(pipe(fds), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(fds[1], STDOUT_FILENO);
      auto supervisor = Supervisor::Create({
          .units = std::move(units),
          .on_ready = [](const std::string& address) { Say("ready " + address); },
          .on_line =
              [](const std::string& process, std::string_view line) {
                Say("line " + process + " " + std::string(line));
              },
          .stop_timeout = stop_timeout,
          .watchdog = watchdog,
      });
      const int code = (*supervisor)->Run();
      Say("error " + (*supervisor)->error());
      _exit(code);
    }
    close(fds[1]);
    out_ = fds[0];
  }
  ~Supervised() {
    kill(pid_, SIGKILL);
    if (!ended_) waitpid(pid_, nullptr, 0);
    close(out_);
  }

  pid_t pid() const { return pid_; }

  // Reads on until a line begins with `prefix`; the rest of that line. "(nothing)" when the time is
  // over.
  std::string Expect(const std::string& prefix) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      const size_t end = text_.find('\n');
      if (end != std::string::npos) {
        const std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        if (line.starts_with(prefix)) return line.substr(prefix.size());
        continue;
      }
      pollfd fd = {out_, POLLIN, 0};
      char buffer[4096];
      ssize_t count = 0;
      if (poll(&fd, 1, 100) == 1 && (count = read(out_, buffer, sizeof buffer)) > 0)
        text_.append(buffer, count);
    }
    return "(nothing)";
  }

  // Waits for the end; the exit code, or -1 for a signal or no end in time.
  int Wait() {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    int status = 0;
    while (std::chrono::steady_clock::now() < deadline) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        ended_ = true;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    return -1;
  }

 private:
  static void Say(const std::string& line) {
    const std::string text = line + "\n";
    [[maybe_unused]] const ssize_t ignored = write(STDOUT_FILENO, text.data(), text.size());
  }

  pid_t pid_;
  int out_;
  std::string text_;
  bool ended_ = false;
};

// Says its pid, says "ready", and stays.
const char kService[] = "echo pid $$; echo ready a:1; exec sleep 100";

TEST(SupervisorTest, SaysReadyWhenTheFrontUnitDoesAndEndsWithZeroOnSigterm) {
  Supervised run(
      {Script("back", kService, 1), Script("front", "echo ready h:42; exec sleep 100", 0, true)});
  EXPECT_EQ(run.Expect("ready "), "h:42");
  kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.Wait(), 0);
}

TEST(SupervisorTest, StopsPhaseByPhase) {
  const auto script = [](const std::string& more) {
    return "trap 'sleep 0.2; echo bye; exit 0' TERM; " + more + "while :; do sleep 0.05; done";
  };
  Supervised run({Script("last", script(""), 2), Script("middle", script(""), 1),
                  Script("front", script("sleep 0.3; echo ready h:1; "), 0, true)});
  run.Expect("ready ");
  kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.Expect("line "), "front bye");
  EXPECT_EQ(run.Expect("line "), "middle bye");
  EXPECT_EQ(run.Expect("line "), "last bye");
  EXPECT_EQ(run.Wait(), 0);
}

TEST(SupervisorTest, StartsAKilledProcessAgain) {
  Supervised run({Script("back", kService, 1),
                  Script("front", "sleep 0.3; echo ready h:1; exec sleep 100", 0, true)});
  const pid_t first = std::stoi(run.Expect("line back pid "));
  run.Expect("ready ");
  kill(first, SIGKILL);
  const pid_t second = std::stoi(run.Expect("line back pid "));
  EXPECT_NE(first, second);
  EXPECT_TRUE(Alive(second));
  EXPECT_FALSE(Alive(first));
}

TEST(SupervisorTest, KillsAProcessThatFallsSilentAndStartsItAgain) {
  UnitPlan back{.name = "back",
                .processes = {{"back",
                               {"/proc/self/exe", "--gtest_filter=NotifyingService.*",
                                "--gtest_also_run_disabled_tests"}}},
                .stop_phase = 1};
  Supervised run({back, Script("front", "sleep 0.3; echo ready h:1; exec sleep 100", 0, true)},
                 milliseconds(10000), milliseconds(3000));
  const pid_t first = std::stoi(run.Expect("line back pid "));
  std::this_thread::sleep_for(milliseconds(4000));
  EXPECT_TRUE(Alive(first)) << "it speaks";
  kill(first, SIGSTOP);
  const pid_t second = std::stoi(run.Expect("line back pid "));
  EXPECT_NE(first, second);
  EXPECT_FALSE(Alive(first));
}

// The child of the test above: a service that says it lives.
TEST(NotifyingService, DISABLED_Serves) {
  const ServiceNotifier notifier;
  std::printf("pid %d\nready a:1\n", getpid());
  std::fflush(stdout);
  pause();
}

TEST(SupervisorTest, ProcessesOfAUnitHaveOneLife) {
  UnitPlan group{.name = "group"};
  for (const std::string name : {"r0", "r1"})
    group.processes.push_back({name, {"/bin/sh", "-c", kService}});
  Supervised run({group, Script("front", "sleep 0.3; echo ready h:1; exec sleep 100", 0, true)});
  // In any order.
  std::map<std::string, pid_t> pids;
  for (int i = 0; i < 2; ++i) {
    const std::string line = run.Expect("line r");
    pids[line.substr(0, 1)] = std::stoi(line.substr(6));
  }
  run.Expect("ready ");
  kill(pids["1"], SIGKILL);
  for (int i = 0; i < 2; ++i) {
    const std::string line = run.Expect("line r");
    EXPECT_NE(pids[line.substr(0, 1)], std::stoi(line.substr(6)));
  }
  EXPECT_FALSE(Alive(pids["0"]));
}

TEST(SupervisorTest, ARestartedFrontKeepsTheAddressItPicked) {
  Supervised run({Script("front", "echo pid $$ $2; echo ready h:42; exec sleep 100", 0, true)});
  const std::string first = run.Expect("line front pid ");
  EXPECT_THAT(first, HasSubstr("h:0"));
  run.Expect("ready ");
  kill(std::stoi(first), SIGKILL);
  EXPECT_THAT(run.Expect("line front pid "), HasSubstr("h:42"));
}

TEST(SupervisorTest, BadInputEndsItWithTwoAndTheMessageOfTheProcess) {
  Supervised run(
      {Script("front", "exec sleep 100", 0, true),
       Script("worker", "sleep 0.1; echo 'hanlin-worker: no such folder: /x' >&2; exit 2", 1)});
  EXPECT_EQ(run.Expect("error "), "no such folder: /x");
  EXPECT_EQ(run.Wait(), 2);
}

TEST(SupervisorTest, AFirstStartThatFailsEndsIt) {
  Supervised run({Script("front", "exit 1", 0, true)});
  EXPECT_EQ(run.Expect("error "), "front ended with exit code 1 before it was ready");
  EXPECT_EQ(run.Wait(), 1);
}

TEST(SupervisorTest, ABinaryThatIsMissingIsNamed) {
  Supervised run(
      {{.name = "front", .processes = {{"front", {"/no/such/binary"}}}, .is_front = true}});
  EXPECT_EQ(run.Expect("error "), "cannot execute /no/such/binary");
  EXPECT_NE(run.Wait(), 0);
}

TEST(SupervisorTest, AFailedRestartIsTriedAgain) {
  hanlin::testing::TempDir dir;
  const std::string mark = dir.path() + "/mark";
  // The second life fails, the third serves.
  const std::string script = "echo pid $$; n=$(cat " + mark +
                             " 2>/dev/null || echo 0); echo $((n+1)) >" + mark +
                             "; [ $n = 1 ] && exit 1; echo ready h:1; exec sleep 100";
  Supervised run({Script("front", script, 0, true)});
  const pid_t first = std::stoi(run.Expect("line front pid "));
  run.Expect("ready ");
  kill(first, SIGKILL);
  const pid_t second = std::stoi(run.Expect("line front pid "));
  const pid_t third = std::stoi(run.Expect("line front pid "));
  EXPECT_NE(second, third);
}

TEST(SupervisorTest, ASecondSignalAborts) {
  Supervised run({Script(
      "front", "trap 'echo no' TERM; echo ready h:1; while :; do sleep 0.05; done", 0, true)});
  run.Expect("ready ");
  kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.Expect("line front "), "no");
  kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.Wait(), 1);
}

TEST(SupervisorTest, AProcessThatDoesNotStopIsKilled) {
  Supervised run(
      {Script("front", "trap '' TERM; echo ready h:1; while :; do sleep 0.05; done", 0, true)},
      milliseconds(200));
  run.Expect("ready ");
  kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.Wait(), 0);
}

TEST(SupervisorTest, ChildrenDieWithASupervisorThatIsKilled) {
  Supervised run({Script("front", kService, 0, true)});
  const pid_t child = std::stoi(run.Expect("line front pid "));
  run.Expect("ready ");
  kill(run.pid(), SIGKILL);
  run.Wait();
  for (int i = 0; i < 400 && Alive(child); ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_FALSE(Alive(child));
}

TEST(SupervisorTest, PassesLinesOfBothStreamsOn) {
  Supervised run({Script("front", "echo out; sleep 0.1; echo err >&2; exec sleep 100", 0, true)});
  EXPECT_EQ(run.Expect("line front "), "out");
  EXPECT_EQ(run.Expect("line front "), "err");
}

TEST(RestartDelayTest, DoublesUpToFiveSeconds) {
  EXPECT_EQ(RestartDelay(1), milliseconds(100));
  EXPECT_EQ(RestartDelay(2), milliseconds(200));
  EXPECT_EQ(RestartDelay(7), milliseconds(5000));
  EXPECT_EQ(RestartDelay(1000), milliseconds(5000));
}

TEST(LineBufferTest, JoinsPiecesAndBoundsALine) {
  std::vector<std::string> lines;
  const auto sink = [&](std::string_view line) { lines.emplace_back(line); };
  LineBuffer buffer;
  buffer.Push("a", sink);
  buffer.Push("b\n\nc", sink);
  buffer.Flush(sink);
  buffer.Push(std::string(100000, 'x'), sink);
  EXPECT_THAT(lines, ::testing::ElementsAre("ab", "", "c", std::string(100000, 'x')));
}

TEST(RunDirectoryTest, IsPrivateAndRemovedWithItsContents) {
  std::string path;
  {
    ASSERT_OK_AND_ASSIGN(const auto directory, RunDirectory::Create());
    path = directory->path();
    std::ofstream(path + "/a.sock") << "x";
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms::owner_all);
    ASSERT_OK_AND_ASSIGN(const auto other, RunDirectory::Create());
    EXPECT_NE(other->path(), path);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(RunDirectoryTest, ABaseThatIsMissingOrTooLongForASocketIsPassedOver) {
  const hanlin::testing::TempDir base;
  const std::string deep = base.path() + "/" + std::string(60, 'd');
  std::filesystem::create_directory(deep);
  setenv("XDG_RUNTIME_DIR", "/no/such/folder", 1);
  setenv("TMPDIR", deep.c_str(), 1);
  const auto directory = RunDirectory::Create();
  unsetenv("XDG_RUNTIME_DIR");
  unsetenv("TMPDIR");
  ASSERT_OK(directory);
  EXPECT_TRUE((*directory)->path().starts_with("/tmp/hanlin-")) << (*directory)->path();
}

TEST(RunDirectoryTest, TheNextStartRemovesWhatAKilledOwnerLeft) {
  hanlin::testing::TempDir base;
  setenv("XDG_RUNTIME_DIR", base.path().c_str(), 1);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    const auto directory = RunDirectory::Create();
    const std::string path = directory.ok() ? (*directory)->path() : "";
    std::ofstream(path + "/worker-0.sock") << "x";
    [[maybe_unused]] const ssize_t written = write(fds[1], path.data(), path.size());
    pause();
  }
  char buffer[200] = {};
  ASSERT_GT(read(fds[0], buffer, sizeof(buffer) - 1), 0);
  const std::string left = buffer;
  // Not ours to remove: what is held, what has no lock, what is a link, what has another name.
  const std::string fresh = base.path() + "/hanlin-fresh0";
  std::filesystem::create_directory(fresh);
  const std::string other = base.path() + "/other";
  std::filesystem::create_directory(other);
  std::ofstream(other + "/lock") << "";
  std::filesystem::create_directory_symlink(other, base.path() + "/hanlin-link00");
  { ASSERT_OK_AND_ASSIGN(const auto directory, RunDirectory::Create()); }
  EXPECT_TRUE(std::filesystem::exists(left + "/worker-0.sock")) << "its owner lives";

  kill(owner, SIGKILL);
  waitpid(owner, nullptr, 0);
  ASSERT_OK_AND_ASSIGN(const auto directory, RunDirectory::Create());
  EXPECT_FALSE(std::filesystem::exists(left));
  EXPECT_TRUE(std::filesystem::exists(directory->path()));
  EXPECT_TRUE(std::filesystem::exists(fresh));
  EXPECT_TRUE(std::filesystem::exists(other + "/lock"));
  unsetenv("XDG_RUNTIME_DIR");
  close(fds[0]);
  close(fds[1]);
}

}  // namespace
}  // namespace hanlin::cli
