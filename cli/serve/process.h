// A child process of this program: its own process group (Ctrl-C in a terminal reaches only the
// parent, which then stops its children in order), killed by the kernel when the parent dies,
// stdout and stderr read through pipes. Not thread-safe. Spawn from a thread that lives as long as
// the child: the kernel's death signal follows the thread.
#ifndef HANLIN_CLI_SERVE_PROCESS_H_
#define HANLIN_CLI_SERVE_PROCESS_H_

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/net/socket.h"

namespace hanlin::cli {

// Bytes to lines. A line longer than 64 KiB is handed out in pieces.
class LineBuffer {
 public:
  using Sink = std::function<void(std::string_view line)>;
  void Push(std::string_view bytes, const Sink& sink);
  // What is left without a line end.
  void Flush(const Sink& sink);

 private:
  std::string held_;
};

class ChildProcess {
 public:
  // Starts argv[0] (a path) with the arguments. Failure to execute shows as exit code 127 and a
  // line on its stderr.
  static absl::StatusOr<ChildProcess> Spawn(const std::vector<std::string>& argv);

  ChildProcess(ChildProcess&&) = default;
  ChildProcess& operator=(ChildProcess&&) = default;

  pid_t pid() const { return pid_; }
  // Non-blocking read ends; -1 once closed.
  int stdout_fd() const { return stdout_.get(); }
  int stderr_fd() const { return stderr_.get(); }

  void Signal(int signal) const;

  // Hands out complete lines that can be read without waiting; closes a pipe at its end.
  void ReadStdout(const LineBuffer::Sink& sink);
  void ReadStderr(const LineBuffer::Sink& sink);

  // The wait status once the process has ended (it is reaped then), without waiting.
  std::optional<int> TryReap();
  // Waits for the end.
  int Reap();
  bool reaped() const { return wait_status_.has_value(); }

 private:
  ChildProcess() = default;
  static void Read(FileDescriptor& fd, LineBuffer& lines, const LineBuffer::Sink& sink);

  pid_t pid_ = -1;
  FileDescriptor stdout_;
  FileDescriptor stderr_;
  LineBuffer stdout_lines_;
  LineBuffer stderr_lines_;
  std::optional<int> wait_status_;
};

// "exit code 2", "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_SERVE_PROCESS_H_
