// See column_sums_launch.h. First stage: a warp takes 32 packs of neighbouring columns, the warps
// of a block and the blocks of a column of the grid take rows in turn.
#include <algorithm>

#include "kernels/base/cuda/packed.cuh"
#include "kernels/elementwise/cuda/column_sums_launch.h"

namespace hanlin {
namespace {

constexpr int kWarps = 8;
constexpr int kBlocks = 1056;  // eight a multiprocessor of an H100
constexpr int kMaxParts = 256;

template <typename T>
__global__ void ColumnSumsKernel(const T* x, int64_t rows, int64_t width, float* partials) {
  constexpr int kSize = kPacked<T>;
  __shared__ float shared[kWarps][32][kSize];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = (int64_t{blockIdx.x} * 32 + lane) * kSize;
  float sums[kSize] = {};
  if (column < width) {
#pragma unroll 4
    for (int64_t r = int64_t{blockIdx.y} * kWarps + warp; r < rows;
         r += int64_t{gridDim.y} * kWarps) {
      float values[kSize];
      LoadPacked(x + r * width + column, values);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sums[i] += values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) shared[warp][lane][i] = sums[i];
  __syncthreads();
  if (warp > 0 || column >= width) return;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    for (int w = 1; w < kWarps; ++w) sums[i] += shared[w][lane][i];
    partials[blockIdx.y * width + column + i] = sums[i];
  }
}

__global__ void AddPartsKernel(const float* partials, int parts, int64_t width, int64_t stride,
                               float* sums) {
  __shared__ float shared[kWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (column < width) {
#pragma unroll 4
    for (int p = warp; p < parts; p += kWarps) sum += partials[p * stride + column];
  }
  shared[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  for (int w = 1; w < kWarps; ++w) sum += shared[w][lane];
  sums[column] += sum;
}

unsigned ColumnBlocks(ComputeType type, int64_t width) {
  const int64_t columns = 32 * 16 / static_cast<int64_t>(SizeOf(type));
  return static_cast<unsigned>((width + columns - 1) / columns);
}

}  // namespace

int ColumnSumParts(ComputeType type, int64_t rows, int64_t width) {
  const int64_t most = std::max<int64_t>(1, kBlocks / ColumnBlocks(type, width));
  return static_cast<int>(std::min<int64_t>({most, kMaxParts, (rows + kWarps - 1) / kWarps}));
}

cudaError_t LaunchColumnSums(ComputeType type, const void* x, int64_t rows, int64_t width,
                             float* partials, cudaStream_t stream) {
  const dim3 grid(ColumnBlocks(type, width), ColumnSumParts(type, rows, width));
  if (type == ComputeType::kFloat32) {
    ColumnSumsKernel<<<grid, 32 * kWarps, 0, stream>>>(static_cast<const float*>(x), rows, width,
                                                       partials);
  } else {
    ColumnSumsKernel<<<grid, 32 * kWarps, 0, stream>>>(static_cast<const __nv_bfloat16*>(x), rows,
                                                       width, partials);
  }
  return cudaGetLastError();
}

cudaError_t LaunchAddParts(const float* partials, int parts, int64_t width, int64_t stride,
                           float* sums, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((width + 31) / 32);
  AddPartsKernel<<<blocks, 32 * kWarps, 0, stream>>>(partials, parts, width, stride, sums);
  return cudaGetLastError();
}

}  // namespace hanlin
