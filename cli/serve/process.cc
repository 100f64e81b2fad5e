// See process.h. Between fork and exec only async-signal-safe calls are made.
#include "cli/serve/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/status/status.h"

namespace hanlin::cli {
namespace {

constexpr size_t kMaxLineBytes = 64 << 10;

// Runs in the child: never returns.
[[noreturn]] void Exec(char* const* argv, pid_t parent, int out, int err) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);  // an ignored signal would stay ignored over exec
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  execv(argv[0], argv);
  constexpr std::string_view kMessage = "cannot execute ";
  [[maybe_unused]] ssize_t ignored = write(STDERR_FILENO, kMessage.data(), kMessage.size());
  ignored = write(STDERR_FILENO, argv[0], strlen(argv[0]));
  ignored = write(STDERR_FILENO, "\n", 1);
  _exit(127);
}

absl::StatusOr<std::array<FileDescriptor, 2>> Pipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return Internal("pipe: {}", strerror(errno));
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return std::array<FileDescriptor, 2>{FileDescriptor(fds[0]), FileDescriptor(fds[1])};
}

}  // namespace

void LineBuffer::Push(std::string_view bytes, const Sink& sink) {
  held_.append(bytes);
  const std::string_view lines = held_;
  size_t begin = 0;
  for (size_t end; (end = lines.find('\n', begin)) != lines.npos; begin = end + 1) {
    sink(lines.substr(begin, end - begin));
  }
  held_.erase(0, begin);
  if (held_.size() > kMaxLineBytes) Flush(sink);
}

void LineBuffer::Flush(const Sink& sink) {
  if (!held_.empty()) sink(held_);
  held_.clear();
}

absl::StatusOr<ChildProcess> ChildProcess::Spawn(const std::vector<std::string>& argv) {
  ASSIGN_OR_RETURN(auto out, Pipe());
  ASSIGN_OR_RETURN(auto err, Pipe());
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return Internal("fork: {}", strerror(errno));
  if (pid == 0) Exec(arguments.data(), parent, out[1].get(), err[1].get());
  ChildProcess child;
  child.pid_ = pid;
  child.stdout_ = std::move(out[0]);
  child.stderr_ = std::move(err[0]);
  return child;
}

void ChildProcess::Signal(int signal) const {
  if (!reaped()) kill(pid_, signal);  // not reaped: the pid is still ours
}

void ChildProcess::Read(FileDescriptor& fd, LineBuffer& lines, const LineBuffer::Sink& sink) {
  char buffer[16 << 10];
  while (fd.get() >= 0) {
    const ssize_t count = read(fd.get(), buffer, sizeof buffer);
    if (count > 0) {
      lines.Push({buffer, static_cast<size_t>(count)}, sink);
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && errno == EAGAIN) {
      return;
    } else {
      lines.Flush(sink);
      fd = FileDescriptor();
    }
  }
}

void ChildProcess::ReadStdout(const LineBuffer::Sink& sink) { Read(stdout_, stdout_lines_, sink); }

void ChildProcess::ReadStderr(const LineBuffer::Sink& sink) { Read(stderr_, stderr_lines_, sink); }

std::optional<int> ChildProcess::TryReap() {
  if (!reaped()) {
    int status;
    if (waitpid(pid_, &status, WNOHANG) == pid_) wait_status_ = status;
  }
  return wait_status_;
}

int ChildProcess::Reap() {
  while (!reaped()) {
    int status = 0;
    if (waitpid(pid_, &status, 0) == pid_ || errno == ECHILD) wait_status_ = status;
  }
  return *wait_status_;
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return fmt::format("signal {} ({})", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
  }
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

}  // namespace hanlin::cli
