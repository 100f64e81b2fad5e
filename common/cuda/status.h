// CUDA runtime errors as absl::Status. Out of memory is RESOURCE_EXHAUSTED, a missing or unfit
// device or driver FAILED_PRECONDITION, a device that is lost UNAVAILABLE, a call that we got wrong
// INTERNAL. Thread-safe.
#ifndef HANLIN_COMMON_CUDA_STATUS_H_
#define HANLIN_COMMON_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include <string_view>

#include "common/status/status.h"

namespace hanlin {

// `what` says what was being done ("copy of 12 bytes to the device").
absl::Status CudaStatus(cudaError_t error, std::string_view what);

}  // namespace hanlin

#define RETURN_IF_CUDA_ERROR(expression) \
  RETURN_IF_ERROR(::hanlin::CudaStatus((expression), #expression))

#endif  // HANLIN_COMMON_CUDA_STATUS_H_
