// Plan and kernel parameters of the skinny product, plain data that host and device code share.
#ifndef HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_
#define HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/base/cuda/linear_epilogue.h"

namespace hanlin {

inline constexpr int kSkinnyDepth = 64;      // inputs per block of k: one 128-byte swizzle row
inline constexpr int kSkinnyMaxSplit = 8;    // portable cluster size
inline constexpr int kSkinnyMaxStages = 16;  // of a ring

// How W is cut: a function of (n, k) and the device, never of the batch, so that the order in which
// an output is summed does not depend on the batch either.
struct SkinnyPlan {
  int rows = 0;   // outputs per block, 64 or 128
  int split = 0;  // blocks of a cluster that share k
};

struct SkinnyArguments {
  CUtensorMap weight_map;  // [n, k], boxes of rows x 64
  CUtensorMap x_map;       // [m, k], boxes of columns x 64
  int64_t m;
  int64_t n;
  int k_blocks;  // of kSkinnyDepth inputs
  int stages;
  LinearEpilogue epilogue;
  const float* bias;
  void* y;
};

// `columns` (8, 16, 32, 64 or 128) is the number of rows of x that a block multiplies.
cudaError_t LaunchSkinny(const SkinnyArguments& arguments, const SkinnyPlan& plan, int columns,
                         cudaStream_t stream);

// Bytes of shared memory of `stages` stages.
inline size_t SkinnyRingBytes(int rows, int columns, int stages) {
  return static_cast<size_t>(stages) * (rows + columns) * kSkinnyDepth * 2;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_
