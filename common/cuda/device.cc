// Device query; the order of the checks decides which message a user sees.
#include "common/cuda/device.h"

#include <cuda_runtime_api.h>

#include "common/cuda/capability.h"
#include "common/cuda/status.h"

namespace hanlin {

absl::Status CheckComputeCapability(const std::string& name, int major, int minor) {
  if (major >= kLeastCudaMajor) return absl::OkStatus();
  return FailedPrecondition("device {} has compute capability {}.{}, want {}.0 or later", name,
                            major, minor, kLeastCudaMajor);
}

absl::StatusOr<CudaDevice> OpenCudaDevice(int ordinal) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess && error != cudaErrorNoDevice) {
    cudaGetLastError();  // not sticky: later calls report their own
    return FailedPrecondition("no usable CUDA driver: {}", cudaGetErrorString(error));
  }
  if (ordinal < 0 || ordinal >= count) {
    return FailedPrecondition("CUDA device {} wanted, {} found", ordinal, count);
  }
  cudaDeviceProp properties;
  RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, ordinal));
  CudaDevice device{.ordinal = ordinal,
                    .name = properties.name,
                    .major = properties.major,
                    .minor = properties.minor,
                    .hopper = RunsHopperKernels(properties.major, properties.minor),
                    .multiprocessors = properties.multiProcessorCount,
                    .shared_memory_per_block = properties.sharedMemPerBlockOptin,
                    .l2_bytes = static_cast<size_t>(properties.l2CacheSize)};
  RETURN_IF_ERROR(CheckComputeCapability(device.name, device.major, device.minor));
  RETURN_IF_CUDA_ERROR(cudaSetDevice(ordinal));
  RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&device.free_bytes, &device.total_bytes));
  return device;
}

}  // namespace hanlin
