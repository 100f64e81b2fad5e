// How the ranks of a group find each other: rank 0 listens, the others connect and say who they
// are, rank 0 answers each. Afterwards the connections stay open and silent: the end of one is the
// death of its rank.
//
// Wire: the joiner sends one frame (socket.h) {u64 magic, i32 rank, i32 size, identity bytes}; the
// leader answers one frame {u32 absl status code, message bytes}. A stranger, a wrong group size, a
// rank that is taken and another identity are told so and turned away; the leader goes on waiting
// for the right ones.
//
// Thread safety: one thread at a time; the descriptors may be polled by others.
#ifndef HANLIN_COMMON_NET_RENDEZVOUS_H_
#define HANLIN_COMMON_NET_RENDEZVOUS_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/socket.h"

namespace hanlin {

struct RendezvousOptions {
  int rank = 0;
  int size = 1;
  // What all ranks must agree on (model fingerprint, dtype, …); a difference is an error that shows
  // both.
  std::string identity;
  // For everyone to come together. Also bounds each later Broadcast and Barrier.
  absl::Duration timeout = absl::Seconds(60);
  // Told now and then what is being waited for: "waiting for ranks 2,3 of 4".
  std::function<void(std::string_view)> progress;
};

class Rendezvous {
 public:
  // Rank 0, on a listener of ListenOn. DEADLINE_EXCEEDED names the ranks that did not come.
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Lead(const FileDescriptor& listener,
                                                          const RendezvousOptions& options);
  // Ranks 1..size-1. The leader's refusal comes back as it said it (FAILED_PRECONDITION, …).
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Join(const std::string& leader_address,
                                                          const RendezvousOptions& options);

  // Rank 0's text to everyone; others' is replaced.
  absl::Status Broadcast(std::string* text);
  // Returns when all ranks have called it.
  absl::Status Barrier();

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }

  // The open connections. Rank 0 has one to every other rank, the others one to rank 0. Nothing is
  // sent on them any more once Broadcast and Barrier are done, so "readable" means that the peer is
  // dead.
  struct Peer {
    int rank;
    FileDescriptor socket;
  };
  const std::vector<Peer>& peers() const { return peers_; }

 private:
  explicit Rendezvous(const RendezvousOptions& options) : options_(options) {}

  RendezvousOptions options_;
  std::vector<Peer> peers_;  // by rank
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_NET_RENDEZVOUS_H_
