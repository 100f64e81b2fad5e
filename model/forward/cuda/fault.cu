// See fault.h.
#include <unistd.h>

#include <cstdlib>

#include "model/forward/cuda/fault.h"

namespace hanlin {
namespace {

__global__ void WriteNowhere(volatile int* nowhere) { *nowhere = 1; }

}  // namespace

bool IsFaultStep(uint64_t step) {
  static const char* const value = std::getenv("HANLIN_FAILPOINT_CUDA_FAULT");
  if (value == nullptr) return false;
  char* end = nullptr;
  if (std::strtoull(value, &end, 10) != step) return false;
  return *end != ':' || unlink(end + 1) == 0;
}

cudaError_t LaunchFault(cudaStream_t stream) {
  WriteNowhere<<<1, 1, 0, stream>>>(reinterpret_cast<volatile int*>(16));
  return cudaGetLastError();
}

}  // namespace hanlin
