// What this machine (or its container) lets us use: processors and memory. Honours the affinity
// mask and the cgroup limits, v1 and v2, of the process's own group and of every group above it.
// Thread-safe: no state.
#ifndef HANLIN_COMMON_HOST_HOST_H_
#define HANLIN_COMMON_HOST_HOST_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace hanlin {

// Memory that can still be taken without swapping or being killed: the smaller of the kernel's
// MemAvailable and what is left below the tightest cgroup limit (page cache that can be dropped
// counts as free). Ranks on one host share it: each takes its part.
absl::StatusOr<uint64_t> AvailableMemoryBytes();

// Processors that this process may keep busy, at least 1: the affinity mask, capped by the cgroup's
// CPU quota (rounded up).
int AvailableCpus();

// The same, with the files of /proc and /sys/fs/cgroup looked up under `root` and `affinity_cpus`
// given: for tests.
absl::StatusOr<uint64_t> AvailableMemoryBytesUnder(const std::string& root);
int AvailableCpusUnder(const std::string& root, int affinity_cpus);

}  // namespace hanlin

#endif  // HANLIN_COMMON_HOST_HOST_H_
