// Vectors for the arrays of a training step: they begin on a cache line, so that no load of 16
// numbers crosses one where rows are multiples of it, and large ones lie in huge pages where the
// system has them (a step walks through hundreds of megabytes).
#ifndef HANLIN_KERNELS_BASE_ALIGNED_H_
#define HANLIN_KERNELS_BASE_ALIGNED_H_

#include <cstddef>
#include <vector>

namespace hanlin {

void* AllocateAligned(size_t bytes);  // never null; ends the process without memory, as new does
void FreeAligned(void* memory);

template <typename T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <typename U>
  explicit AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(AllocateAligned(count * sizeof(T))); }
  void deallocate(T* memory, size_t) { FreeAligned(memory); }
  bool operator==(const AlignedAllocator&) const = default;
};

template <typename T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_ALIGNED_H_
