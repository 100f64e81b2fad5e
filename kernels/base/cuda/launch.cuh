// Launch with programmatic dependent launch: the kernel may start while the one ahead of it in the
// stream still runs, and calls ptx::WaitForPrevious before it touches what that one writes.
#ifndef HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_
#define HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

namespace hanlin {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // dynamic
  int cluster = 1;          // blocks of a cluster, along x
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
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = shape.cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_LAUNCH_CUH_
