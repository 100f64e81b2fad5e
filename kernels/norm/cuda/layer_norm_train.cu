// The kernels of layer_norm_train.h. A row lies in the registers of a block's or a warp's threads,
// sixteen bytes of it in each of kPacks packs of a thread.
#include <algorithm>

#include "kernels/base/cuda/packed.cuh"
#include "kernels/elementwise/cuda/column_sums_launch.h"
#include "kernels/elementwise/cuda/dropout.cuh"
#include "kernels/norm/cuda/layer_norm_train_params.h"

namespace hanlin {
namespace {

constexpr int kMaxThreads = 512;
// Backward: threads that a multiprocessor's registers are enough for.
template <int kPacks>
inline constexpr int kResidentThreads = kPacks == 1 ? 1024 : 512;

// Forward, with kWarpRow: a warp takes a row, which spares barriers; else a block does.
constexpr int kRowWarps = 4;  // of a block
template <bool kWarpRow>
__device__ __forceinline__ float SumOfRow(float value, float* scratch) {
  if constexpr (kWarpRow) return WarpSum(value);
  return BlockSum(value, scratch);
}

template <typename T, int kPacks, bool kDrops, bool kWarpRow>
__global__ void __launch_bounds__(kWarpRow ? 32 * kRowWarps : kMaxThreads)
    LayerNormTrainKernel(const CudaLayerNormTrainParams p, const DropoutLaw law) {
  constexpr int kSize = kPacked<T>;
  __shared__ float scratch[2][32];
  const int threads = kWarpRow ? 32 : blockDim.x;
  const int thread = kWarpRow ? threadIdx.x % 32 : threadIdx.x;
  const int64_t row = kWarpRow ? int64_t{blockIdx.x} * kRowWarps + threadIdx.x / 32 : blockIdx.x;
  if (row >= p.rows) return;
  const int64_t base = row * p.width;
  const auto column_of = [&](int k) { return (k * threads + thread) * kSize; };
  uint4 packs[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (column_of(k) >= p.width) break;
    packs[k] = LoadRaw(static_cast<const T*>(p.x) + base + column_of(k));
  }
  if (p.delta != nullptr) {
    uint4 deltas[kPacks];  // all before the first store, which the compiler could not know apart
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (column_of(k) >= p.width) break;
      deltas[k] = LoadRaw(static_cast<const T*>(p.delta) + base + column_of(k));
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = column_of(k);
      if (column >= p.width) break;
      float values[kSize], delta[kSize], bias[kSize];
      Unpack(packs[k], values);
      Unpack(deltas[k], delta);
      LoadPacked(p.delta_bias + column, bias);
#pragma unroll
      for (int i = 0; i < kSize; ++i) delta[i] += bias[i];
      if constexpr (kDrops) {
        DropPack(law, static_cast<uint32_t>(p.dropout.first_row + row), column, p.width, delta);
      }
#pragma unroll
      for (int i = 0; i < kSize; ++i) values[i] += delta[i];
      packs[k] = Pack(values);
      *reinterpret_cast<uint4*>(static_cast<T*>(p.sum) + base + column) = packs[k];
    }
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (column_of(k) >= p.width) break;
    float values[kSize];
    Unpack(packs[k], values);
#pragma unroll
    for (const float value : values) sum += value;
  }
  const float mean = SumOfRow<kWarpRow>(sum, scratch[0]) / static_cast<float>(p.width);
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (column_of(k) >= p.width) break;
    float values[kSize];
    Unpack(packs[k], values);
#pragma unroll
    for (const float value : values) squares += (value - mean) * (value - mean);
  }
  const float variance = SumOfRow<kWarpRow>(squares, scratch[1]) / static_cast<float>(p.width);
  const float rstd = 1.0f / sqrtf(variance + p.epsilon);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = column_of(k);
    if (column >= p.width) break;
    float values[kSize], weight[kSize], bias[kSize];
    Unpack(packs[k], values);
    LoadPacked(p.weight + column, weight);
    LoadPacked(p.bias + column, bias);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] = (values[i] - mean) * rstd * weight[i] + bias[i];
    StorePacked(static_cast<T*>(p.y) + base + column, values);
  }
  if (thread == 0) {
    p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
}

// Of a row, what backward reads.
template <int kPacks>
struct BackwardRow {
  uint4 x[kPacks], dy[kPacks], dx[kPacks];
  float mean, rstd;
};

template <typename T, int kPacks>
__device__ __forceinline__ void Fetch(const CudaLayerNormBackwardParams& p, int64_t row,
                                      BackwardRow<kPacks>& to) {
  to.mean = p.mean[row];
  to.rstd = p.rstd[row];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = (k * blockDim.x + threadIdx.x) * kPacked<T>;
    if (column >= p.width) break;
    const int64_t at = row * p.width + column;
    to.x[k] = LoadRaw(static_cast<const T*>(p.x) + at);
    to.dy[k] = LoadRaw(static_cast<const T*>(p.dy) + at);
    to.dx[k] = LoadRaw(static_cast<const T*>(p.dx) + at);
  }
}

// A block takes rows in turn and leaves its sums of dy xhat, of dy and, with kDxSums, of dx. While
// it works on a row, it fetches the next one, where registers are enough; they are not for the sums
// of dx too, which lie in shared memory, each thread's its own.
template <typename T, int kPacks, bool kDxSums>
__global__ void __launch_bounds__(kMaxThreads, kResidentThreads<kPacks> / kMaxThreads)
    LayerNormBackwardKernel(const CudaLayerNormBackwardParams p, float* partials) {
  constexpr int kSize = kPacked<T>;
  constexpr bool kFetchesAhead = kPacks <= 2;
  __shared__ float scratch[4][32];
  extern __shared__ float4 dx_sums[];  // [kPacks, kSize / 4, blockDim.x]
  const auto dx_sums_of = [&](int k, int quad) -> float4& {
    return dx_sums[(k * (kSize / 4) + quad) * blockDim.x + threadIdx.x];
  };
  if constexpr (kDxSums) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int q = 0; q < kSize / 4; ++q) dx_sums_of(k, q) = make_float4(0, 0, 0, 0);
    }
  }
  float dweight[kPacks][kSize] = {}, dbias[kPacks][kSize] = {};
  const float share = 1.0f / static_cast<float>(p.width);
  const auto rows = static_cast<unsigned>(p.rows);  // below 2^31
  int turn = 0;
  BackwardRow<kPacks> own, next;
  if (kFetchesAhead) Fetch<T>(p, blockIdx.x, next);
  for (unsigned row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 2) {
    if constexpr (kFetchesAhead) {
      own = next;
      if (row + gridDim.x < rows) Fetch<T>(p, row + gridDim.x, next);
    } else {
      Fetch<T>(p, row, own);
    }
    float sum = 0, product = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = (k * blockDim.x + threadIdx.x) * kSize;
      if (column >= p.width) break;
      float x[kSize], dy[kSize], weight[kSize];
      Unpack(own.x[k], x);
      Unpack(own.dy[k], dy);
      LoadPacked(p.weight + column, weight);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const float xhat = (x[i] - own.mean) * own.rstd, g = dy[i] * weight[i];
        dweight[k][i] += dy[i] * xhat;
        dbias[k][i] += dy[i];
        sum += g;
        product += g * xhat;
      }
    }
    sum = WarpSum(sum);
    product = WarpSum(product);
    // Two pairs in turn: the row after the next is a barrier away from this one's reads.
    if (threadIdx.x % 32 == 0) {
      scratch[turn][threadIdx.x / 32] = sum;
      scratch[turn + 1][threadIdx.x / 32] = product;
    }
    __syncthreads();
    float mean_g = 0, mean_product = 0;
    for (unsigned w = 0; w < (blockDim.x + 31) / 32; ++w) {
      mean_g += scratch[turn][w];
      mean_product += scratch[turn + 1][w];
    }
    mean_g *= share;
    mean_product *= share;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int column = (k * blockDim.x + threadIdx.x) * kSize;
      if (column >= p.width) break;
      float x[kSize], dy[kSize], dx[kSize], weight[kSize];
      Unpack(own.x[k], x);
      Unpack(own.dy[k], dy);
      Unpack(own.dx[k], dx);
      LoadPacked(p.weight + column, weight);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const float xhat = (x[i] - own.mean) * own.rstd, g = dy[i] * weight[i];
        dx[i] += own.rstd * (g - mean_g - xhat * mean_product);
      }
      const uint4 packed = Pack(dx);
      *reinterpret_cast<uint4*>(static_cast<T*>(p.dx) + row * p.width + column) = packed;
      if constexpr (kDxSums) {
        Unpack(packed, dx);
#pragma unroll
        for (int q = 0; q < kSize / 4; ++q) {
          float4& sums = dx_sums_of(k, q);
          sums = make_float4(sums.x + dx[4 * q], sums.y + dx[4 * q + 1], sums.z + dx[4 * q + 2],
                             sums.w + dx[4 * q + 3]);
        }
      }
    }
  }
  constexpr int kArrays = kDxSums ? 3 : 2;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int column = (k * blockDim.x + threadIdx.x) * kSize;
    if (column >= p.width) break;
    float* const to = partials + kArrays * blockIdx.x * p.width + column;
    StorePacked(to, dweight[k]);
    StorePacked(to + p.width, dbias[k]);
    if constexpr (kDxSums) {
#pragma unroll
      for (int q = 0; q < kSize / 4; ++q) {
        reinterpret_cast<float4*>(to + 2 * p.width)[q] = dx_sums_of(k, q);
      }
    }
  }
}

struct Shape {
  int packs;  // of a thread
  int threads;
};
Shape ShapeOf(ComputeType type, int64_t width) {
  const auto all = static_cast<int>(width * static_cast<int64_t>(SizeOf(type)) / 16);
  int packs = 1;
  while (packs * kMaxThreads < all) packs *= 2;
  return {packs, ((all + packs - 1) / packs + 31) / 32 * 32};
}

// Calls launch with the number of packs as a constant.
template <typename T, typename Launch>
void ChoosePacks(int packs, Launch&& launch) {
  constexpr int kMost = kMaxLayerNormWidth / (kPacked<T> * kMaxThreads);
  if (packs == 1) {
    launch(std::integral_constant<int, 1>());
  } else if (packs == 2) {
    launch(std::integral_constant<int, 2>());
  } else {
    launch(std::integral_constant<int, kMost>());
  }
}

template <typename T, int kPacks, bool kWarpRow>
void Forward(const CudaLayerNormTrainParams& p, int64_t blocks, int threads, cudaStream_t stream) {
  const DropoutLaw law = MakeDropoutLaw(p.dropout);
  const auto kernel = p.delta != nullptr && p.dropout.rate > 0
                          ? LayerNormTrainKernel<T, kPacks, true, kWarpRow>
                          : LayerNormTrainKernel<T, kPacks, false, kWarpRow>;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(p, law);
}

// With the fewest packs a lane of those listed.
template <typename T, int kPacks, int... kMore>
void ForwardByWarps(const CudaLayerNormTrainParams& p, int64_t packs, cudaStream_t stream) {
  if constexpr (sizeof...(kMore) > 0) {
    if (packs > kPacks) return ForwardByWarps<T, kMore...>(p, packs, stream);
  }
  Forward<T, kPacks, true>(p, (p.rows + kRowWarps - 1) / kRowWarps, 32 * kRowWarps, stream);
}

template <typename T>
void Forward(const CudaLayerNormTrainParams& p, cudaStream_t stream) {
  // More take so many registers that a block a row is faster, 63 us to 67 for 8192 rows of 2560.
  constexpr int64_t kLanePacks = 8;
  const int64_t lane_packs = (p.width + 32 * kPacked<T> - 1) / (32 * kPacked<T>);
  if (lane_packs <= kLanePacks) {
    return ForwardByWarps<T, 1, 2, 3, 4, 6, kLanePacks>(p, lane_packs, stream);
  }
  const Shape shape = ShapeOf(p.type, p.width);
  ChoosePacks<T>(shape.packs, [&](auto packs) {
    Forward<T, decltype(packs)::value, false>(p, p.rows, shape.threads, stream);
  });
}

template <typename T>
void Backward(const CudaLayerNormBackwardParams& p, int blocks, cudaStream_t stream) {
  const Shape shape = ShapeOf(p.type, p.width);
  auto* const partials = static_cast<float*>(p.workspace);
  ChoosePacks<T>(shape.packs, [&](auto packs) {
    constexpr int kPacks = decltype(packs)::value;
    if (p.dx_sums == nullptr) {
      LayerNormBackwardKernel<T, kPacks, false><<<blocks, shape.threads, 0, stream>>>(p, partials);
    } else {
      const size_t shared = kPacks * kPacked<T> * sizeof(float) * shape.threads;
      LayerNormBackwardKernel<T, kPacks, true>
          <<<blocks, shape.threads, shared, stream>>>(p, partials);
    }
  });
}

}  // namespace

int LayerNormBackwardBlocks(ComputeType type, int64_t rows, int64_t width) {
  // As many as are resident on each of an H100's multiprocessors, whatever the device: the order of
  // the sums must not depend on it.
  const Shape shape = ShapeOf(type, width);
  const int resident = shape.packs == 1 ? kResidentThreads<1> : kResidentThreads<2>;
  const int per_multiprocessor = std::clamp(resident / shape.threads, 1, 8);
  return static_cast<int>(std::min<int64_t>(rows, 132 * per_multiprocessor));
}

cudaError_t LaunchLayerNormTrain(const CudaLayerNormTrainParams& p, cudaStream_t stream) {
  if (p.type == ComputeType::kFloat32) {
    Forward<float>(p, stream);
  } else {
    Forward<__nv_bfloat16>(p, stream);
  }
  return cudaGetLastError();
}

cudaError_t LaunchLayerNormBackward(const CudaLayerNormBackwardParams& p, cudaStream_t stream) {
  const int blocks = LayerNormBackwardBlocks(p.type, p.rows, p.width);
  if (p.type == ComputeType::kFloat32) {
    Backward<float>(p, blocks, stream);
  } else {
    Backward<__nv_bfloat16>(p, blocks, stream);
  }
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  return LaunchAddParts(static_cast<const float*>(p.workspace), blocks, p.width, p.dweight, p.dbias,
                        p.dx_sums, stream);
}

}  // namespace hanlin
