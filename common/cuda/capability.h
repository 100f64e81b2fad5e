// Which of the kernels a GPU runs, by its compute capability. Those written for Hopper need 9.0; on
// every other device from 8.0 on portable kernels and cublasLt do the work: the plain path.
// HANLIN_FAILPOINT_CUDA_PLAIN in the environment, with any value, makes a Hopper GPU take it, too,
// for tests and comparisons. No abseil here: launchers in .cu files include it. Thread-safe.
#ifndef HANLIN_COMMON_CUDA_CAPABILITY_H_
#define HANLIN_COMMON_CUDA_CAPABILITY_H_

namespace hanlin {

inline constexpr int kLeastCudaMajor = 8;

bool RunsHopperKernels(int major, int minor);

// Whether kernels may be launched on the current device to start before the one ahead of them has
// ended: from 9.0 on, whose code has the wait (ptx.cuh).
bool HasDependentLaunch();

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_CAPABILITY_H_
