// mmap without reservation of swap, aligned to huge pages.
#include "kernels/base/arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMaxCapacity = size_t{1}
                                << 46;  // below the address space: sums of sizes cannot overflow

}  // namespace

absl::StatusOr<Arena> Arena::Create(size_t capacity_bytes) {
  if (capacity_bytes > kMaxCapacity) {
    return ResourceExhausted("cannot reserve {} bytes of memory", capacity_bytes);
  }
  Arena arena;
  arena.mapping_bytes_ = RoundUp(capacity_bytes) + kHugePage;
  void* mapping = mmap(nullptr, arena.mapping_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return ResourceExhausted("cannot reserve {} bytes of memory: {}", capacity_bytes,
                             std::strerror(errno));
  }
  arena.mapping_ = mapping;
  const auto address = reinterpret_cast<uintptr_t>(mapping);
  const size_t skip = (kHugePage - address % kHugePage) % kHugePage;
  arena.data_ = static_cast<std::byte*>(mapping) + skip;
  arena.capacity_ = RoundUp(capacity_bytes);
  madvise(arena.data_, arena.capacity_,
          MADV_HUGEPAGE);  // a hint: without huge pages it is only slower
  return arena;
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(used_, other.used_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

absl::StatusOr<std::byte*> Arena::Allocate(size_t bytes) {
  if (bytes > capacity_ || RoundUp(bytes) > capacity_ - used_) {
    return ResourceExhausted("{} bytes do not fit in the {} of {} bytes that are left", bytes,
                             capacity_ - used_, capacity_);
  }
  std::byte* result = data_ + used_;
  used_ += RoundUp(bytes);
  return result;
}

}  // namespace hanlin
