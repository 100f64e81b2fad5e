// See shutdown.h.
#include "common/rpc/shutdown.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>

#include "absl/time/clock.h"
#include "common/obs/log.h"

namespace hanlin {
namespace {
constexpr absl::Duration kSameSignal = absl::Milliseconds(200);
}  // namespace

ShutdownSignal::ShutdownSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  event_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Listen(); });
}

ShutdownSignal::~ShutdownSignal() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  thread_.join();
  close(signal_fd_);
  close(event_fd_);
}

void ShutdownSignal::Trigger() { kill(getpid(), SIGTERM); }

void ShutdownSignal::Listen() {
  absl::Time first = absl::InfiniteFuture();
  while (true) {
    pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {event_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if ((fds[1].revents & POLLIN) != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) continue;
    // Supervisors and timeout(1) may send one signal twice, to the process and to its group.
    if (notified_.HasBeenNotified() && absl::Now() - first < kSameSignal) continue;
    if (notified_.HasBeenNotified()) {
      Log(LogLevel::kWarning, "second signal, exiting at once");
      _exit(1);
    }
    Log(LogLevel::kInfo, "shutting down", {{"signal", static_cast<int>(info.ssi_signo)}});
    first = absl::Now();
    notified_.Notify();
  }
}

void DieWithParent() { prctl(PR_SET_PDEATHSIG, SIGTERM); }

}  // namespace hanlin
