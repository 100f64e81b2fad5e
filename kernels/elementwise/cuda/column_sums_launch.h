// Sums over the rows of a matrix in two stages: blocks leave partial sums, which are then added in
// a fixed order. The first stage is a pass that may compute what it adds up (column_pass.cuh); the
// second one also ends LayerNorm's backward pass.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_SUMS_LAUNCH_H_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_SUMS_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int kColumnPassWarps = 8;                   // of a block
inline constexpr int kColumnPassResident = 4;                // blocks on a multiprocessor
unsigned ColumnPassBlocks(ComputeType type, int64_t width);  // that share a row

// Partial sums per column.
int ColumnSumParts(ComputeType type, int64_t rows, int64_t width);

// x [rows, width] of `type`; partials [ColumnSumParts, width].
cudaError_t LaunchColumnSums(ComputeType type, const void* x, int64_t rows, int64_t width,
                             float* partials, cudaStream_t stream);

// sums[c] += the parts of column c; partials [parts, width]. With `second` they are
// [parts, 2, width], and the latter ones are its; with `third` as well [parts, 3, width].
cudaError_t LaunchAddParts(const float* partials, int parts, int64_t width, float* sums,
                           float* second, float* third, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_SUMS_LAUNCH_H_
