// Collectives through a shared memory segment, for ranks that are processes (or threads) of one
// host.
//
// Rank 0 makes the segment under a name nobody can guess, tells it over the rendezvous and removes
// the name as soon as all ranks have mapped it: from then on nothing is left behind, whoever dies.
// The rendezvous connections stay open: the end of one is the death of a peer, noticed within 50 ms
// by whoever waits.
#ifndef HANLIN_MODEL_COMM_SHARED_MEMORY_H_
#define HANLIN_MODEL_COMM_SHARED_MEMORY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/rendezvous.h"
#include "model/comm/communicator.h"

namespace hanlin {

// Called by every rank. `timeout` is how long a rank may keep the others waiting inside a
// collective before it counts as stopped. FAILED_PRECONDITION when the ranks do not share a host,
// RESOURCE_EXHAUSTED when /dev/shm is full.
absl::StatusOr<std::unique_ptr<Communicator>> MakeSharedMemoryCommunicator(
    std::unique_ptr<Rendezvous> rendezvous, absl::Duration timeout = absl::Seconds(8));

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_SHARED_MEMORY_H_
