// Plan and kernel parameters of the skinny product, plain data that host and device code share.
#ifndef HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_
#define HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/base/cuda/host_device.h"
#include "kernels/base/cuda/l2_prefetch.h"
#include "kernels/base/cuda/linear_epilogue.h"

namespace hanlin {

inline constexpr int kSkinnyDepth = 64;      // inputs per block of k: one 128-byte swizzle row
inline constexpr int kSkinnyMaxRows = 128;   // outputs per block
inline constexpr int kSkinnyMaxSplit = 8;    // portable cluster size
inline constexpr int kSkinnyMaxStages = 24;  // of a ring

// How the product is cut. Only `split` decides in which order an output is summed.
struct SkinnyPlan {
  int rows = 0;     // outputs per block, a multiple of 8 up to kSkinnyMaxRows
  int split = 0;    // blocks of a cluster that divide k among themselves
  int columns = 0;  // rows of x per block: 8, 16, 32, 64 or 128
  int stages = 0;   // of the ring
};

struct SkinnyArguments {
  CUtensorMap weight_map;  // [n, k], boxes of `rows` x 64
  CUtensorMap x_map;       // [m, k], boxes of columns x 64
  int64_t m;
  int64_t n;
  int rows;
  int split;
  int k_blocks;  // of kSkinnyDepth inputs
  int stages;
  int lead;  // blocks of k left to copy when the next kernel may start
  LinearEpilogue epilogue;
  const float* bias;
  void* y;
  L2Prefetch next;
};

cudaError_t LaunchSkinny(const SkinnyArguments& arguments, int columns, cudaStream_t stream);

// Bytes of shared memory of `stages` stages, and of what lies behind the last one because a
// warpgroup multiplies 64 rows even where the tile has fewer.
HANLIN_HOST_DEVICE constexpr int SkinnyRingBytes(int rows, int columns, int stages) {
  return stages * (rows + columns) * kSkinnyDepth * 2;
}
HANLIN_HOST_DEVICE constexpr int SkinnySlackBytes(int rows, int columns) {
  const int read = rows <= 64 ? 64 : 128;
  return rows + columns < read ? (read - rows - columns) * kSkinnyDepth * 2 : 0;
}

// Warpgroups that take turns over the blocks of k. A stage belongs to one of them, so the number of
// stages is a multiple of theirs, twice as many at least.
HANLIN_HOST_DEVICE constexpr int SkinnyWays(int rows) { return rows <= 64 ? 4 : 2; }

// Bytes of the sums that take the ring's place.
HANLIN_HOST_DEVICE constexpr int SkinnySumBytes(int rows, int columns) {
  return SkinnyWays(rows) * columns * ((rows <= 64 ? 64 : 128) + 4) * 4;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_SKINNY_PARAMS_H_
