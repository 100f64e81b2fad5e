// Several ranks of a group on one host from one command: a container or unit that holds N
// accelerators starts one process, which forks the others. And the check that a group has as many
// ranks as its launcher made places for. Not thread-safe: for the start of main.
#ifndef HANLIN_WORKER_HOST_RANKS_H_
#define HANLIN_WORKER_HOST_RANKS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

// Forks count - 1 processes, before the first thread is made. Returns 0 in the caller and 1 to
// count - 1 in the others, which die with it. INVALID_ARGUMENT for a count out of 1 to 64.
absl::StatusOr<int> ForkHostRanks(int count);

// A LeaderWorkerSet tells its pods how many they are (LWS_GROUP_SIZE). INVALID_ARGUMENT when that
// many pods of `host_ranks` ranks each are not `tp` ranks; OK outside of one.
absl::Status CheckGroupSize(int tp, int host_ranks);

}  // namespace hanlin

#endif  // HANLIN_WORKER_HOST_RANKS_H_
