// Plan and kernel parameters of the medium product, plain data that host and device code share.
#ifndef HANLIN_KERNELS_GEMM_CUDA_MEDIUM_PARAMS_H_
#define HANLIN_KERNELS_GEMM_CUDA_MEDIUM_PARAMS_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/cuda/host_device.h"
#include "kernels/base/cuda/l2_prefetch.h"
#include "kernels/base/cuda/linear_epilogue.h"

namespace hanlin {

inline constexpr int kMediumRows = 128;      // of x, in every block
inline constexpr int kMediumDepth = 64;      // inputs per block of k: one 128-byte swizzle row
inline constexpr int kMediumMaxSplit = 8;    // portable cluster size
inline constexpr int kMediumMaxStages = 10;  // of a ring
// Pairs of warpgroups that take turns over the blocks of k: one pair cannot keep the tensor cores
// busy with few columns. A stage belongs to one of them, so the number of stages is a multiple of
// theirs.
inline constexpr int kMediumWays = 2;

// How the product is cut.
struct MediumPlan {
  int columns = 0;  // outputs per block, one of kMediumColumns
  int split = 0;    // blocks of a cluster that divide k among themselves
  int stages = 0;   // of the ring, MediumStages
};

// Outputs per block that there are kernels for.
inline constexpr int kMediumColumns[] = {32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128};

struct MediumArguments {
  CUtensorMap weight_map;  // [n, k], boxes of columns x 64
  CUtensorMap x_map;       // [m, k], boxes of kMediumRows x 64
  int m;
  int64_t n;
  int split;
  int k_blocks;  // of kMediumDepth inputs
  int stages;
  int lead;  // blocks of k left to copy when the next kernel may start
  LinearEpilogue epilogue;
  const float* bias;
  void* y;
  L2Prefetch next;
};

cudaError_t LaunchMedium(const MediumArguments& arguments, int columns, cudaStream_t stream);

HANLIN_HOST_DEVICE constexpr int MediumStageBytes(int columns) {
  return (kMediumRows + columns) * kMediumDepth * 2;
}

// A block's sums are `columns` units of 16 rows by 8 columns, a float4 a lane. The blocks along k
// finish about as many each; this many at most:
HANLIN_HOST_DEVICE constexpr int MediumUnits(int columns, int split) {
  return (columns + split - 1) / split;
}
inline constexpr int kMediumUnitBytes = 32 * 16;

// Bytes of the sums of a block, which take the ring's place, and behind them of those that the
// cluster's blocks send it.
HANLIN_HOST_DEVICE constexpr int MediumOwnBytes(int columns) {
  return kMediumWays * columns * kMediumUnitBytes;
}
HANLIN_HOST_DEVICE constexpr int MediumSentBytes(int columns, int split) {
  return split == 1 ? 0 : split * MediumUnits(columns, split) * kMediumUnitBytes;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_MEDIUM_PARAMS_H_
