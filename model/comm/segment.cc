// See segment.h.
#include "model/comm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <new>

#include "absl/time/clock.h"
#include "common/net/socket.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr auto kSpin = std::chrono::microseconds(20);
static_assert(sizeof(SegmentHeader) % kCacheLine == 0);

size_t SegmentBytes(int size) {
  return sizeof(SegmentHeader) + size_t{2} * size * kSlotFloats * sizeof(float);
}

// Not FUTEX_PRIVATE: the word is shared between processes.
void FutexWait(std::atomic<uint32_t>* word, uint32_t seen, absl::Duration timeout) {
  const timespec time = absl::ToTimespec(timeout);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT, seen, &time, nullptr, 0);
}
void FutexWakeAll(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

absl::StatusOr<std::string> RandomName() {
  uint64_t words[2];
  if (getrandom(words, sizeof(words), 0) != sizeof(words)) {
    return Internal("getrandom: {}", strerror(errno));
  }
  return fmt::format("/hanlin-{:016x}{:016x}", words[0], words[1]);
}

// Counters wrap: a is at or behind b when the distance is small.
bool Reached(uint32_t generation, uint32_t target) {
  return static_cast<int32_t>(generation - target) >= 0;
}

}  // namespace

Segment::Segment(std::string name, bool owns_name, void* memory, int size)
    : name_(std::move(name)),
      owns_name_(owns_name),
      size_(size),
      header_(static_cast<SegmentHeader*>(memory)),
      slots_(reinterpret_cast<float*>(static_cast<char*>(memory) + sizeof(SegmentHeader))) {}

Segment::~Segment() {
  Unlink();
  munmap(header_, SegmentBytes(size_));
}

void Segment::Unlink() {
  if (std::exchange(owns_name_, false)) shm_unlink(name_.c_str());
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Make(int size) {
  if (size < 1 || size > SegmentHeader::kMaxRanks) {
    return InvalidArgument("{} ranks, want 1 to {}", size, SegmentHeader::kMaxRanks);
  }
  ASSIGN_OR_RETURN(std::string name, RandomName());
  const FileDescriptor fd(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return Unavailable("cannot make shared memory: {}", strerror(errno));
  // Takes the memory now: a full /dev/shm is an error here instead of a SIGBUS later.
  const int error = posix_fallocate(fd.get(), 0, SegmentBytes(size));
  void* memory = error != 0 ? MAP_FAILED
                            : mmap(nullptr, SegmentBytes(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                                   fd.get(), 0);
  if (memory == MAP_FAILED) {
    shm_unlink(name.c_str());
    return ResourceExhausted("cannot take {} bytes of shared memory for {} ranks: {}",
                             SegmentBytes(size), size, strerror(error != 0 ? error : errno));
  }
  new (memory) SegmentHeader();  // fresh pages are zero: alive, no barrier done
  return std::unique_ptr<Segment>(new Segment(std::move(name), true, memory, size));
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Open(const std::string& name, int size) {
  const FileDescriptor fd(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return FailedPrecondition(
        "cannot open the leader's shared memory {} ({}): the ranks of a group must share a host "
        "and its /dev/shm",
        name, strerror(errno));
  }
  const off_t bytes = lseek(fd.get(), 0, SEEK_END);
  if (bytes != static_cast<off_t>(SegmentBytes(size))) {
    return FailedPrecondition("shared memory of {} bytes, want {} for {} ranks", bytes,
                              SegmentBytes(size), size);
  }
  void* memory = mmap(nullptr, SegmentBytes(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return Unavailable("cannot map shared memory: {}", strerror(errno));
  return std::unique_ptr<Segment>(new Segment(name, false, memory, size));
}

absl::Status Segment::Barrier(int rank, uint32_t target, absl::Duration timeout,
                              const std::function<absl::Status()>& check) {
  RETURN_IF_ERROR(Failure());
  header_->ranks[rank].arrived.store(target, std::memory_order_relaxed);
  if (header_->arrivals.fetch_add(1, std::memory_order_acq_rel) + 1 ==
      static_cast<uint32_t>(size_)) {
    header_->arrivals.store(0, std::memory_order_relaxed);  // nobody can come to the next one yet
    header_->generation.store(target);
    if (header_->sleepers.load() > 0) FutexWakeAll(&header_->generation);
    return absl::OkStatus();
  }
  const auto spin_end = std::chrono::steady_clock::now() + kSpin;
  do {
    if (Reached(header_->generation.load(std::memory_order_acquire), target)) {
      return absl::OkStatus();
    }
    _mm_pause();
  } while (std::chrono::steady_clock::now() < spin_end);

  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    header_->sleepers.fetch_add(1);
    const uint32_t seen = header_->generation.load();
    const bool reached = Reached(seen, target);
    if (!reached) FutexWait(&header_->generation, seen, kDeathPollInterval);
    header_->sleepers.fetch_sub(1);
    if (reached || Reached(header_->generation.load(), target)) return absl::OkStatus();
    RETURN_IF_ERROR(check());
    if (absl::Now() >= deadline) {
      Abort(fmt::format("{} did not answer within {} s", MissingRanks(target),
                        absl::ToDoubleSeconds(timeout)));
      return Failure();
    }
  }
}

std::string Segment::MissingRanks(uint32_t target) const {
  std::string ranks;
  for (int rank = 0; rank < size_; ++rank) {
    if (!Reached(header_->ranks[rank].arrived.load(std::memory_order_relaxed), target)) {
      fmt::format_to(std::back_inserter(ranks), "{}{}", ranks.empty() ? "" : ",", rank);
    }
  }
  return fmt::format("rank {} of {}", ranks, size_);
}

void Segment::Abort(std::string_view reason) {
  uint32_t life = SegmentHeader::kAlive;
  if (!header_->life.compare_exchange_strong(life, SegmentHeader::kDying)) return;
  const size_t length = std::min(reason.size(), SegmentHeader::kReasonBytes - 1);
  memcpy(header_->reason, reason.data(), length);
  header_->life.store(SegmentHeader::kDead, std::memory_order_release);
  FutexWakeAll(&header_->generation);
}

absl::Status Segment::Failure() const {
  switch (header_->life.load(std::memory_order_acquire)) {
    case SegmentHeader::kAlive:
      return absl::OkStatus();
    case SegmentHeader::kDead:
      return Unavailable(
          "the worker group ended: {}",
          std::string_view(header_->reason, strnlen(header_->reason, SegmentHeader::kReasonBytes)));
    default:
      return Unavailable("the worker group ended");
  }
}

}  // namespace hanlin
