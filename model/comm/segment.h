// The shared memory segment under SharedMemoryCommunicator, and the one way in which ranks wait for
// each other: a barrier with a generation counter.
//
// Layout: SegmentHeader, then float slots [rank][2][kSlotFloats]. Operation k of a rank uses slot k
// % 2, so a rank may write the next operation while others still read this one; it cannot get two
// ahead, because the barrier in between needs everybody.
//
// Thread safety: Arrive/Wait by one thread per rank; Abort, Failure by any thread.
#ifndef HANLIN_MODEL_COMM_SEGMENT_H_
#define HANLIN_MODEL_COMM_SEGMENT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace hanlin {

inline constexpr size_t kSlotFloats = size_t{64} << 10;
inline constexpr size_t kCacheLine = 64;
inline constexpr absl::Duration kDeathPollInterval = absl::Milliseconds(50);

struct SegmentHeader {
  static constexpr int kMaxRanks = 64;
  static constexpr size_t kReasonBytes = 256;
  enum Life : uint32_t { kAlive = 0, kDying = 1, kDead = 2 };

  std::atomic<uint32_t> life;  // kDying: somebody is writing `reason`
  char reason[kReasonBytes];
  alignas(kCacheLine) std::atomic<uint32_t> arrivals;    // of the current barrier
  alignas(kCacheLine) std::atomic<uint32_t> generation;  // barriers completed: a futex
  std::atomic<uint32_t> sleepers;
  struct alignas(kCacheLine) Rank {
    std::atomic<uint32_t> arrived;  // the last barrier it came to: says who is missing
  };
  Rank ranks[kMaxRanks];
};

class Segment {
 public:
  // Makes a segment of `size` ranks, under a random name that other processes open once.
  static absl::StatusOr<std::unique_ptr<Segment>> Make(int size);
  static absl::StatusOr<std::unique_ptr<Segment>> Open(const std::string& name, int size);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  const std::string& name() const { return name_; }
  // Removes the name; the memory lives until the last mapping ends. Also done by the destructor of
  // the maker.
  void Unlink();

  float* slot(int rank, int parity) const {
    return slots_ + (size_t{2} * rank + parity) * kSlotFloats;
  }

  // Comes to barrier number `target` (1, 2, …) as `rank` and waits for all `size` ranks: spins for
  // up to 20 µs, then sleeps; `check` runs every kDeathPollInterval and may end the wait. A wait
  // beyond `timeout` aborts, naming the ranks that are missing.
  absl::Status Barrier(int rank, uint32_t target, absl::Duration timeout,
                       const std::function<absl::Status()>& check);

  // The first call wins; wakes everybody.
  void Abort(std::string_view reason);
  // UNAVAILABLE with the reason once aborted.
  absl::Status Failure() const;

 private:
  Segment(std::string name, bool owns_name, void* memory, int size);

  std::string MissingRanks(uint32_t target) const;

  std::string name_;
  bool owns_name_;
  const int size_;
  SegmentHeader* header_;
  float* slots_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_SEGMENT_H_
