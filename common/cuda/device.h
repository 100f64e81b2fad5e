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
  int multiprocessors = 0;
  size_t shared_memory_per_block = 0;  // bytes a block may ask for
  size_t l2_bytes = 0;
  size_t total_bytes = 0;
  size_t free_bytes = 0;  // at the time of the query
};

// Makes device `ordinal` current for this thread. FAILED_PRECONDITION when there is no driver, no
// such device, or a device of another compute capability than the kernels were compiled for.
absl::StatusOr<CudaDevice> OpenCudaDevice(int ordinal);

// OK when code compiled for sm_90a can run on major.minor; the message names both.
absl::Status CheckComputeCapability(const std::string& name, int major, int minor);

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_DEVICE_H_
