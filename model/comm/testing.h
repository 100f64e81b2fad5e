// For tests of tensor parallelism: the ranks of a group as threads of this process, joined by the
// real rendezvous and the real shared memory.
#ifndef HANLIN_MODEL_COMM_TESTING_H_
#define HANLIN_MODEL_COMM_TESTING_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/net/rendezvous.h"
#include "common/testing/testing.h"
#include "model/comm/communicator.h"
#include "model/comm/shared_memory.h"

namespace hanlin::testing {

// One rank's communicator, led from a Unix socket in `directory`. Blocks until all `size` ranks
// have called it.
inline absl::StatusOr<std::unique_ptr<Communicator>> JoinTestGroup(
    const std::string& directory, int rank, int size, absl::Duration timeout = absl::Seconds(8)) {
  if (size == 1) return MakeSingleRankCommunicator();
  const std::string address = "unix:" + directory + "/rendezvous";
  const RendezvousOptions options = {
      .rank = rank, .size = size, .identity = "test", .timeout = absl::Seconds(20)};
  if (rank != 0) {
    ASSIGN_OR_RETURN(auto rendezvous, Rendezvous::Join(address, options));
    return MakeSharedMemoryCommunicator(std::move(rendezvous), timeout);
  }
  ASSIGN_OR_RETURN(const FileDescriptor listener, ListenOn(address));
  ASSIGN_OR_RETURN(auto rendezvous, Rendezvous::Lead(listener, options));
  return MakeSharedMemoryCommunicator(std::move(rendezvous), timeout);
}

// Runs `body` once per rank, each on a thread of its own; a group that cannot form is a test
// failure.
inline void RunRanks(int size, const std::function<void(Communicator&)>& body) {
  const TempDir directory;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto communicator = JoinTestGroup(directory.path(), rank, size);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      body(**communicator);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_COMM_TESTING_H_
