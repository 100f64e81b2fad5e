// See capability.h.
#include "common/cuda/capability.h"

#include <cuda_runtime_api.h>

#include <cstdlib>

namespace hanlin {
namespace {

bool IsPlainForced() {
  static const bool forced = std::getenv("HANLIN_FAILPOINT_CUDA_PLAIN") != nullptr;
  return forced;
}

}  // namespace

bool RunsHopperKernels(int major, int minor) {
  return major == 9 && minor == 0 && !IsPlainForced();
}

bool HasDependentLaunch() {
  int device = 0, major = 0;
  return !IsPlainForced() && cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 9;
}

}  // namespace hanlin
