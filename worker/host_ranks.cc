// See host_ranks.h.
#include "worker/host_ranks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int kMaxHostRanks = 64;

}  // namespace

absl::StatusOr<int> ForkHostRanks(int count) {
  if (count < 1 || count > kMaxHostRanks) {
    return InvalidArgument("--host-ranks is {}, want 1 to {}", count, kMaxHostRanks);
  }
  const pid_t parent = getpid();
  for (int index = 1; index < count; ++index) {
    const pid_t pid = fork();
    if (pid < 0) return Internal("fork: {}", strerror(errno));
    if (pid > 0) continue;
    // A follower outlives SIGTERM, so that the group can drain; it must not outlive its host's
    // first rank.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // the parent died before the line above
    return index;
  }
  return 0;
}

absl::Status CheckGroupSize(int tp, int host_ranks) {
  const char* text = std::getenv("LWS_GROUP_SIZE");
  if (text == nullptr) return absl::OkStatus();
  int pods = 0;
  const std::string_view digits = text;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), pods);
  if (error != std::errc() || end != digits.end() || pods < 1) {
    return InvalidArgument("LWS_GROUP_SIZE is \"{}\", want a number of pods", text);
  }
  if (int64_t{pods} * host_ranks == tp) return absl::OkStatus();
  return InvalidArgument(
      "--tp is {}, but the group has {} pods (LWS_GROUP_SIZE) of {} ranks (--host-ranks): want {}",
      tp, pods, host_ranks, int64_t{pods} * host_ranks);
}

}  // namespace hanlin
