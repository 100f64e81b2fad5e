// What the program has to know about a GPU, and whether its kernels can run there. Thread-safe.
#ifndef HANLIN_COMMON_CUDA_DEVICE_H_
#define HANLIN_COMMON_CUDA_DEVICE_H_

#include <cstddef>
#include <string>

#include "common/status/status.h"

namespace hanlin {

struct CudaDevice {
  int ordinal = 0;
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  bool hopper = false;  // the kernels written for 9.0 run here; else the plain path (capability.h)
  int multiprocessors = 0;
  size_t shared_memory_per_block = 0;  // bytes a block may ask for
  size_t l2_bytes = 0;
  size_t total_bytes = 0;
  size_t free_bytes = 0;  // at the time of the query
};

// Makes device `ordinal` current for this thread. FAILED_PRECONDITION when there is no driver, no
// such device, or one of a compute capability below 8.0.
absl::StatusOr<CudaDevice> OpenCudaDevice(int ordinal);

// OK when there are kernels for major.minor; the message names what it has and what is wanted.
absl::Status CheckComputeCapability(const std::string& name, int major, int minor);

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_DEVICE_H_
