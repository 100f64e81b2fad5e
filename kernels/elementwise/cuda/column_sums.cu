// See column_sums_launch.h.
#include <algorithm>

#include "kernels/elementwise/cuda/column_pass.cuh"

namespace hanlin {
namespace {

constexpr int kBlocks = 132 * kColumnPassResident;  // all at once on an H100
constexpr int kMaxParts = 256;
constexpr int kAddWarps = 32;  // as many as a warp has lanes

template <typename T>
struct Plain {
  static constexpr int kInputs = 1, kAhead = 6;
  const T* x;
  int64_t width;
  __device__ __forceinline__ void Load(int64_t row, int64_t column, uint4 (&inputs)[1]) const {
    inputs[0] = LoadRaw(x + row * width + column);
  }
  __device__ __forceinline__ void Compute(int64_t, int64_t, const uint4 (&inputs)[1],
                                          float (&out)[kPacked<T>]) const {
    Unpack(inputs[0], out);
  }
};

__global__ void __launch_bounds__(32 * kAddWarps)
    AddPartsKernel(const float* partials, int parts, int64_t width, float* sums, float* second,
                   float* third) {
  __shared__ float shared[kAddWarps][33];
  const int64_t stride = gridDim.y * width;
  partials += blockIdx.y * width;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int p = warp; p < parts; p += kAddWarps) sum += partials[p * stride + column];
  }
  shared[warp][lane] = sum;
  __syncthreads();
  // Warp w adds up column w.
  sum = WarpSum(shared[lane][warp]);
  const int64_t own = int64_t{blockIdx.x} * 32 + warp;
  float* const to = blockIdx.y == 0 ? sums : blockIdx.y == 1 ? second : third;
  if (lane == 0 && own < width) to[own] += sum;
}

}  // namespace

unsigned ColumnPassBlocks(ComputeType type, int64_t width) {
  const int64_t columns = 32 * 16 / static_cast<int64_t>(SizeOf(type));
  return static_cast<unsigned>((width + columns - 1) / columns);
}

int ColumnSumParts(ComputeType type, int64_t rows, int64_t width) {
  const int64_t most = std::max<int64_t>(1, kBlocks / ColumnPassBlocks(type, width));
  return static_cast<int>(
      std::min<int64_t>({most, kMaxParts, (rows + kColumnPassWarps - 1) / kColumnPassWarps}));
}

cudaError_t LaunchColumnSums(ComputeType type, const void* x, int64_t rows, int64_t width,
                             float* partials, cudaStream_t stream) {
  if (type == ComputeType::kFloat32) {
    const Plain<float> pass = {static_cast<const float*>(x), width};
    return LaunchColumnPass<float>(type, pass, rows, width, partials, stream);
  }
  const Plain<__nv_bfloat16> pass = {static_cast<const __nv_bfloat16*>(x), width};
  return LaunchColumnPass<__nv_bfloat16>(type, pass, rows, width, partials, stream);
}

cudaError_t LaunchAddParts(const float* partials, int parts, int64_t width, float* sums,
                           float* second, float* third, cudaStream_t stream) {
  const unsigned arrays = second == nullptr ? 1 : third == nullptr ? 2 : 3;
  const dim3 grid(static_cast<unsigned>((width + 31) / 32), arrays);
  AddPartsKernel<<<grid, 32 * kAddWarps, 0, stream>>>(partials, parts, width, sums, second, third);
  return cudaGetLastError();
}

}  // namespace hanlin
