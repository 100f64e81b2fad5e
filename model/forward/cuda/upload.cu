// See upload.h. Every thread has one load under way: the time is that of the bus.
#include "model/forward/cuda/upload.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;

__global__ void UploadKernel(const uint4* from, uint4* to, size_t units) {
  const size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < units) to[i] = from[i];
}

}  // namespace

cudaError_t LaunchUpload(const void* pinned, void* device, size_t bytes, cudaStream_t stream) {
  const size_t units = bytes / sizeof(uint4);
  const auto blocks = static_cast<unsigned>((units + kThreads - 1) / kThreads);
  UploadKernel<<<blocks, kThreads, 0, stream>>>(static_cast<const uint4*>(pinned),
                                                static_cast<uint4*>(device), units);
  return cudaGetLastError();
}

}  // namespace hanlin
