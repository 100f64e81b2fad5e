// What tensor parallelism needs from the outside: collectives among the ranks of one worker group.
// All ranks call the same operations in the same order. Sums run in rank order, so every rank holds
// the same bits.
//
// Failure: every wait ends. A peer that dies, a peer that stalls beyond the timeout and an Abort()
// on any rank all end the operation with UNAVAILABLE naming the rank; from then on every call on
// every rank fails likewise, and the group has to start again as one.
//
// Thread safety: the collectives are called by one thread per rank; Abort() and Check() by any
// thread.
#ifndef HANLIN_MODEL_COMM_COMMUNICATOR_H_
#define HANLIN_MODEL_COMM_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace hanlin {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // data[i] becomes the sum over the ranks, in place. Equal sizes on all ranks.
  virtual absl::Status AllReduceSum(std::span<float> data) = 0;

  // An array cut into one part a rank: rank r's is [cuts[r], cuts[r + 1]), and may be empty. The
  // same cuts on all ranks, size() + 1 of them, from 0 to data.size().
  //
  // The own part becomes the sum over the ranks, with the bits of AllReduceSum; the rest of data
  // is of no use any more. Moves half of what AllReduceSum moves.
  virtual absl::Status ReduceScatterSum(std::span<float> data, std::span<const int64_t> cuts) = 0;
  // The own part reaches everyone, who replaces theirs of it.
  virtual absl::Status AllGather(std::span<float> data, std::span<const int64_t> cuts) = 0;

  // Joins column shards on rank 0: shard [rows, columns] of every rank → out [rows, size ·
  // columns]. `out` is read on rank 0 only and may be null elsewhere.
  virtual absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns,
                                     float* out) = 0;

  // Carries rank 0's bytes to everyone (on other ranks `message` is replaced). A follower may wait
  // for longer than the group's timeout here, because an idle leader has nothing to say: `timeout`
  // bounds its wait for the beginning of a message.
  virtual absl::Status Broadcast(std::vector<std::byte>* message, absl::Duration timeout) = 0;

  virtual absl::Status Barrier() = 0;

  // A barrier for a moment when the ranks are not in step, as at the end of loading: `timeout`
  // takes the place of the group's.
  virtual absl::Status WaitForAll(absl::Duration timeout) = 0;

  // Ends the group: waiting and future operations fail on every rank. The first call wins.
  virtual void Abort(std::string_view reason) = 0;

  // OK while the group lives; looks for dead peers without waiting.
  virtual absl::Status Check() = 0;
};

// A group of one: nothing to do and nothing to wait for.
std::unique_ptr<Communicator> MakeSingleRankCommunicator();

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_COMMUNICATOR_H_
