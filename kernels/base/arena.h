// One large anonymous mapping with a bump pointer: all weights of a rank (or its KV pool) live in
// one allocation, on huge pages where the kernel grants them. Memory is reserved, not touched:
// pages appear, zeroed, on first write. Not thread-safe; the memory itself is plain memory.
#ifndef HANLIN_KERNELS_BASE_ARENA_H_
#define HANLIN_KERNELS_BASE_ARENA_H_

#include <cstddef>

#include "absl/status/statusor.h"

namespace hanlin {

class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // of every allocation: a cache line, an AVX-512 vector

  // RESOURCE_EXHAUSTED when the address space is refused.
  static absl::StatusOr<Arena> Create(size_t capacity_bytes);

  Arena() = default;
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  // `bytes` zeroed bytes, aligned to kAlignment; RESOURCE_EXHAUSTED when the arena is full. Sum the
  // RoundUp of the sizes to know the capacity that a set of allocations needs.
  absl::StatusOr<std::byte*> Allocate(size_t bytes);
  static constexpr size_t RoundUp(size_t bytes) {
    return (bytes + kAlignment - 1) & ~(kAlignment - 1);
  }

  const std::byte* data() const { return data_; }
  size_t used() const { return used_; }
  size_t capacity() const { return capacity_; }

 private:
  std::byte* data_ = nullptr;  // start of the usable part, on a huge-page border
  size_t capacity_ = 0;
  size_t used_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_ARENA_H_
