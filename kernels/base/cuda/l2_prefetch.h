// What a kernel brings into L2 for a later one while memory would idle: a hint, results do not
// depend on it. Plain data that host and device code share.
#ifndef HANLIN_KERNELS_BASE_CUDA_L2_PREFETCH_H_
#define HANLIN_KERNELS_BASE_CUDA_L2_PREFETCH_H_

#include <cstdint>

namespace hanlin {

struct L2Prefetch {
  const void* data = nullptr;  // 16-byte aligned; null: nothing
  int64_t bytes = 0;           // of data, a multiple of 16
  int64_t ahead = 0;           // how many of these to bring, spread evenly over data
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_L2_PREFETCH_H_
