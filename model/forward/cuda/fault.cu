// See fault.h.
#include <cstdlib>

#include "model/forward/cuda/fault.h"

namespace hanlin {
namespace {

__global__ void WriteNowhere(volatile int* nowhere) { *nowhere = 1; }

}  // namespace

uint64_t FaultStep() {
  const char* const step = std::getenv("HANLIN_FAILPOINT_CUDA_FAULT");
  return step == nullptr ? 0 : std::strtoull(step, nullptr, 10);
}

cudaError_t LaunchFault(cudaStream_t stream) {
  WriteNowhere<<<1, 1, 0, stream>>>(reinterpret_cast<volatile int*>(16));
  return cudaGetLastError();
}

}  // namespace hanlin
