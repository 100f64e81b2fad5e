// Launch with programmatic dependent launch: the kernel may start while the one ahead of it in the
// stream still runs, and calls ptx::WaitForPrevious before it touches what that one writes. On
// devices without that (capability.h) it is an ordinary launch.
#ifndef HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_
#define HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

#include "common/cuda/capability.h"

namespace hanlin {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic
  int cluster = 1;          // blocks of a cluster, along x; more than one on Hopper only
};

template <typename... Parameters, typename... Arguments>
cudaError_t LaunchDependent(void (*kernel)(Parameters...), const LaunchShape& shape,
                            cudaStream_t stream, const Arguments&... arguments) {
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (HasDependentLaunch()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_
