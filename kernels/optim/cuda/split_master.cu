// One element a thread and step: these run when weights are loaded, saved and, over a few vectors,
// after an update.
#include <algorithm>

#include "kernels/optim/cuda/split_master.cuh"
#include "kernels/optim/cuda/split_master.h"

namespace hanlin {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 2112;  // sixteen a multiprocessor

__device__ __forceinline__ int64_t First() {
  return blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
}
__device__ __forceinline__ int64_t Stride() { return int64_t{gridDim.x} * blockDim.x; }

__global__ void SplitKernel(const float* values, int64_t count, uint16_t* high, uint16_t* low) {
  for (int64_t i = First(); i < count; i += Stride()) SplitMaster(values[i], &high[i], &low[i]);
}

__global__ void JoinKernel(const uint16_t* high, const uint16_t* low, int64_t count,
                           float* values) {
  for (int64_t i = First(); i < count; i += Stride()) values[i] = JoinMaster(high[i], low[i]);
}

// blockIdx.y takes a range.
__global__ void JoinRangesKernel(const uint16_t* high, const uint16_t* low,
                                 const MasterRange* ranges, float* values) {
  const MasterRange range = ranges[blockIdx.y];
  for (int64_t i = First(); i < range.count; i += Stride()) {
    values[range.to + i] = JoinMaster(high[range.from + i], low[range.from + i]);
  }
}

unsigned Blocks(int64_t count) {
  return static_cast<unsigned>(
      std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, kMaxBlocks));
}
const uint16_t* Bits(const BFloat16* values) { return reinterpret_cast<const uint16_t*>(values); }

}  // namespace

cudaError_t LaunchSplitMaster(const float* values, int64_t count, BFloat16* high, uint16_t* low,
                              cudaStream_t stream) {
  SplitKernel<<<Blocks(count), kThreads, 0, stream>>>(values, count,
                                                      reinterpret_cast<uint16_t*>(high), low);
  return cudaGetLastError();
}

cudaError_t LaunchJoinRanges(const BFloat16* high, const uint16_t* low, const MasterRange* ranges,
                             int num_ranges, float* values, cudaStream_t stream) {
  if (num_ranges == 0) return cudaSuccess;
  constexpr int kBlocksPerRange =
      128;  // for the position table; of others all but a few end at once
  const dim3 grid(kBlocksPerRange, num_ranges);
  JoinRangesKernel<<<grid, kThreads, 0, stream>>>(Bits(high), low, ranges, values);
  return cudaGetLastError();
}

cudaError_t LaunchJoinMaster(const BFloat16* high, const uint16_t* low, int64_t count,
                             float* values, cudaStream_t stream) {
  JoinKernel<<<Blocks(count), kThreads, 0, stream>>>(Bits(high), low, count, values);
  return cudaGetLastError();
}

}  // namespace hanlin
