// See gather.h. A block a row.
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "model/forward/cuda/gather.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

__global__ void GatherKernel(GatherRows p) {
  ptx::WaitForPrevious();
  ptx::StartNext();
  const int32_t source = p.index[blockIdx.x];
  for (int part = 0; part < 2; ++part) {
    const size_t units = p.row_bytes[part] / sizeof(uint4);
    const uint4* const from = static_cast<const uint4*>(p.from[part]) + source * units;
    uint4* const to = static_cast<uint4*>(p.to[part]) + blockIdx.x * units;
    for (size_t i = threadIdx.x; i < units; i += kThreads) {
      to[i] = source < 0 ? make_uint4(0, 0, 0, 0) : from[i];
    }
  }
}

}  // namespace

cudaError_t LaunchGather(const GatherRows& params, cudaStream_t stream) {
  const LaunchShape shape = {dim3(params.rows), dim3(kThreads)};
  return LaunchDependent(GatherKernel, shape, stream, params);
}

}  // namespace hanlin
