// A pass over a matrix that leaves the sums of what it computes by column, first of the two stages
// of column_sums_launch.h. A warp takes 32 packs of neighbouring columns, the warps of a block and
// the blocks of a column of the grid take rows in turn.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_PASS_CUH_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_PASS_CUH_

#include "kernels/base/cuda/packed.cuh"
#include "kernels/elementwise/cuda/column_sums_launch.h"

namespace hanlin {

// A pass has
//   kInputs, kAhead                    packs that it reads; rows whose loads are in flight
//   Load(row, column, inputs)          reads them
//   Compute(row, column, inputs, out)  what is added up; may store it
// Where it stores is read by no other pack. partials [gridDim.y, width].
template <typename T, typename Pass>
__global__ void __launch_bounds__(32 * kColumnPassWarps, kColumnPassResident)
    ColumnPassKernel(const Pass pass, int64_t rows, int64_t width, float* partials) {
  constexpr int kSize = kPacked<T>;
  constexpr int kAhead = Pass::kAhead;
  __shared__ float shared[kColumnPassWarps][32][kSize];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = (int64_t{blockIdx.x} * 32 + lane) * kSize;
  const int64_t stride = int64_t{gridDim.y} * kColumnPassWarps;
  float sums[kSize] = {};
  for (int64_t first = int64_t{blockIdx.y} * kColumnPassWarps + warp;
       column < width && first < rows; first += kAhead * stride) {
    uint4 inputs[kAhead][Pass::kInputs];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a * stride < rows) pass.Load(first + a * stride, column, inputs[a]);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a * stride >= rows) break;
      float out[kSize];
      pass.Compute(first + a * stride, column, inputs[a], out);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sums[i] += out[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) shared[warp][lane][i] = sums[i];
  __syncthreads();
  if (warp > 0 || column >= width) return;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    for (int w = 1; w < kColumnPassWarps; ++w) sums[i] += shared[w][lane][i];
    partials[blockIdx.y * width + column + i] = sums[i];
  }
}

template <typename T, typename Pass>
cudaError_t LaunchColumnPass(ComputeType type, const Pass& pass, int64_t rows, int64_t width,
                             float* partials, cudaStream_t stream) {
  const dim3 grid(ColumnPassBlocks(type, width), ColumnSumParts(type, rows, width));
  ColumnPassKernel<T><<<grid, 32 * kColumnPassWarps, 0, stream>>>(pass, rows, width, partials);
  return cudaGetLastError();
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CUDA_COLUMN_PASS_CUH_
