// A block takes a row, sixteen bytes a thread and step; rows that do not begin at such a border go
// element by element.
#include <algorithm>

#include "kernels/base/cuda/packed.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/loss/cuda/cross_entropy_params.h"

namespace hanlin {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
static_assert(kWarps == 32);  // a lane for each

__device__ __forceinline__ float Exp(float x) { return ptx::Exp2(x * 1.44269504f); }

// A maximum and the sum of e^(x - maximum) of some numbers.
struct Sum {
  float maximum;
  float sum;
};

// -inf, 0 is the sum of nothing.
__device__ __forceinline__ Sum Join(Sum a, Sum b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  if (maximum == -INFINITY) return {maximum, 0.0f};
  return {maximum, a.sum * expf(a.maximum - maximum) + b.sum * expf(b.maximum - maximum)};
}

template <int kSize, typename T>
__device__ __forceinline__ void Load(const T* from, float (&values)[kSize]) {
  if constexpr (kSize == 1) {
    values[0] = static_cast<float>(*from);
  } else {
    LoadPacked(from, values);
  }
}
template <int kSize, typename T>
__device__ __forceinline__ void Store(T* to, const float (&values)[kSize]) {
  if constexpr (kSize == 1) {
    *to = static_cast<T>(values[0]);
  } else {
    StorePacked(to, values);
  }
}

template <int kSize>
__device__ __forceinline__ void Add(const float (&values)[kSize], Sum& total) {
  float maximum = total.maximum;
#pragma unroll
  for (const float value : values) maximum = fmaxf(maximum, value);
  if (maximum > total.maximum) {
    total.sum *= Exp(total.maximum - maximum);
    total.maximum = maximum;
  }
#pragma unroll
  for (const float value : values) total.sum += Exp(value - total.maximum);
}

__device__ __forceinline__ Sum JoinWarp(Sum total) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    total = Join(total, {__shfl_xor_sync(0xffffffffu, total.maximum, offset),
                         __shfl_xor_sync(0xffffffffu, total.sum, offset)});
  }
  return total;
}

// Of the block's threads; thread 0 has the result.
__device__ __forceinline__ Sum JoinBlock(Sum total, Sum* shared) {
  total = JoinWarp(total);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = total;
  __syncthreads();
  return threadIdx.x < 32 ? JoinWarp(shared[threadIdx.x]) : total;
}

// Of a row of `count` logits, the block's threads together; thread 0 has the result.
template <int kSize, typename T>
__device__ __forceinline__ Sum SumOfRow(const T* logits, int64_t count, Sum* shared) {
  Sum total = {-INFINITY, 0.0f};
  for (int64_t at = threadIdx.x * kSize; at < count; at += kThreads * kSize) {
    float values[kSize];
    Load(logits + at, values);
    Add(values, total);
  }
  return JoinBlock(total, shared);
}

// Logits from `at` on become their gradient.
template <int kSize>
__device__ __forceinline__ void Gradient(int64_t at, int64_t label, float log_sum, float weight,
                                         float (&values)[kSize]) {
  const auto hit = static_cast<int>(label - at);  // both below 2^31
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const float probability = Exp(values[i] - log_sum);
    values[i] = weight == 0 ? 0.0f : (i == hit ? probability - 1.0f : probability) * weight;
  }
}

// A row becomes its gradient.
template <int kSize, typename T>
__device__ __forceinline__ void GradientOfRow(T* logits, int64_t count, int64_t label,
                                              float log_sum, float weight) {
  for (int64_t at = threadIdx.x * kSize; at < count; at += kThreads * kSize) {
    float values[kSize] = {};
    if (weight != 0) {
      Load(logits + at, values);
      Gradient(at, label, log_sum, weight, values);
    }
    Store(logits + at, values);
  }
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, 2)
    StatsKernel(const CudaCrossEntropyParams p, int shard, int shards, CrossEntropyStat* stats) {
  __shared__ Sum shared[kWarps];
  const int64_t row = blockIdx.x;
  const T* const logits = static_cast<const T*>(p.logits) + row * p.vocabulary_size;
  const Sum total = SumOfRow<kSize>(logits, p.vocabulary_size, shared);
  if (threadIdx.x > 0) return;
  const int64_t label = p.labels[row] - p.vocabulary_begin;
  const bool own = label >= 0 && label < p.vocabulary_size;
  for (int i = 0; i < shards; ++i) stats[row * shards + i] = {0.0f, 0.0f, 0.0f};
  stats[row * shards + shard] = {total.maximum, total.sum,
                                 own ? static_cast<float>(logits[label]) : 0.0f};
}

__global__ void __launch_bounds__(kThreads, 2)
    JoinKernel(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
               float* loss) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const CrossEntropyStat* const own = stats + row * shards;
  float maximum = own[0].maximum;
  for (int i = 1; i < shards; ++i) maximum = fmaxf(maximum, own[i].maximum);
  float sum = 0, target = 0;
  for (int i = 0; i < shards; ++i) {
    sum += own[i].sum * expf(own[i].maximum - maximum);
    target += own[i].target;
  }
  log_sum[row] = maximum + logf(sum);
  loss[row] = log_sum[row] - target;
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, 2)
    GradientKernel(const CudaCrossEntropyParams p, const float* log_sums, const float* weights) {
  const int64_t row = blockIdx.x;
  T* const logits = static_cast<T*>(p.logits) + row * p.vocabulary_size;
  GradientOfRow<kSize>(logits, p.vocabulary_size, p.labels[row] - p.vocabulary_begin, log_sums[row],
                       weights[row]);
}

constexpr int kParts = 4;  // of a row, each waited for on its own

__device__ __forceinline__ void WaitForAllBut(int parts) {
  if (parts == 3) ptx::WaitForCopies<3>();
  if (parts == 2) ptx::WaitForCopies<2>();
  if (parts == 1) ptx::WaitForCopies<1>();
  if (parts == 0) ptx::WaitForCopies<0>();
}

// All steps for a vocabulary that is one shard, with rows in shared memory. A thread copies what it
// alone reads, and fetches the next row's pack as soon as it has stored a gradient, so that copies
// are in flight all the time.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    StagedKernel(const CudaCrossEntropyParams p, const float* weights, float* loss) {
  constexpr int kSize = kPacked<T>;
  extern __shared__ uint4 staged[];
  __shared__ Sum shared[kWarps];
  __shared__ float shared_log_sum;
  const auto packs = static_cast<int>(p.vocabulary_size / kSize);
  const int part_packs = (packs + kParts * kThreads - 1) / (kParts * kThreads) * kThreads;
  const auto rows = static_cast<int>(p.rows);
  const auto logits = [&](int row) { return static_cast<T*>(p.logits) + row * p.vocabulary_size; };
  const auto fetch = [&](int row, int pack) {
    ptx::CopyOrZero(ptx::SharedAddress(staged + pack), logits(row) + pack * kSize, true);
  };
  int row = blockIdx.x;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int end = min((part + 1) * part_packs, packs);
    for (int k = part * part_packs + threadIdx.x; k < end; k += kThreads) fetch(row, k);
    ptx::CommitCopies();
  }
  for (; row < rows; row += gridDim.x) {
    const float weight = weights[row];
    const int label = p.labels[row];
    Sum total = {-INFINITY, 0.0f};
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      WaitForAllBut(kParts - 1 - part);
      const int end = min((part + 1) * part_packs, packs);
      for (int k = part * part_packs + threadIdx.x; k < end; k += kThreads) {
        float values[kSize];
        Unpack(staged[k], values);
        Add(values, total);
      }
    }
    total = JoinBlock(total, shared);
    if (threadIdx.x == 0) {
      const bool own = label >= 0 && label < p.vocabulary_size;
      shared_log_sum = total.maximum + logf(total.sum);
      loss[row] = shared_log_sum -
                  (own ? static_cast<float>(reinterpret_cast<const T*>(staged)[label]) : 0.0f);
    }
    __syncthreads();
    const float log_sum = shared_log_sum;
    const int next = row + static_cast<int>(gridDim.x);
#pragma unroll 1
    for (int part = 0; part < kParts; ++part) {
      const int end = min((part + 1) * part_packs, packs);
      for (int k = part * part_packs + threadIdx.x; k < end; k += kThreads) {
        float values[kSize];
        Unpack(staged[k], values);
        Gradient(k * kSize, label, log_sum, weight, values);
        StorePacked(logits(row) + k * kSize, values);
        if (next < rows) fetch(next, k);
      }
      ptx::CommitCopies();
    }
  }
}

// The same where a row is too long for shared memory. Two blocks a multiprocessor, so that it is
// still in L2 when it is read again.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, 2)
    WholeKernel(const CudaCrossEntropyParams p, const float* weights, float* loss) {
  __shared__ Sum shared[kWarps];
  __shared__ float shared_log_sum;
  const int64_t row = blockIdx.x;
  T* const logits = static_cast<T*>(p.logits) + row * p.vocabulary_size;
  const int64_t label = p.labels[row];
  const Sum total = SumOfRow<kSize>(logits, p.vocabulary_size, shared);
  if (threadIdx.x == 0) {
    const bool own = label >= 0 && label < p.vocabulary_size;
    shared_log_sum = total.maximum + logf(total.sum);
    loss[row] = shared_log_sum - (own ? static_cast<float>(logits[label]) : 0.0f);
  }
  __syncthreads();
  GradientOfRow<kSize>(logits, p.vocabulary_size, label, shared_log_sum, weights[row]);
}

template <typename T, typename Launch>
void Choose(int64_t vocabulary_size, Launch&& launch) {
  if (vocabulary_size % kPacked<T> == 0) {
    launch(std::integral_constant<int, kPacked<T>>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
}

template <typename Launch>
void ChooseType(ComputeType type, int64_t vocabulary_size, Launch&& launch) {
  if (type == ComputeType::kFloat32) {
    Choose<float>(vocabulary_size, [&](auto size) { launch(float(), size); });
  } else {
    Choose<__nv_bfloat16>(vocabulary_size, [&](auto size) { launch(__nv_bfloat16(), size); });
  }
}

}  // namespace

cudaError_t LaunchCrossEntropyStats(const CudaCrossEntropyParams& p, int shard, int shards,
                                    CrossEntropyStat* stats, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(p.rows);
  ChooseType(p.type, p.vocabulary_size, [&](auto type, auto size) {
    StatsKernel<decltype(type), decltype(size)::value>
        <<<rows, kThreads, 0, stream>>>(p, shard, shards, stats);
  });
  return cudaGetLastError();
}

cudaError_t LaunchJoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
                            float* loss, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((rows + kThreads - 1) / kThreads);
  JoinKernel<<<blocks, kThreads, 0, stream>>>(stats, rows, shards, log_sum, loss);
  return cudaGetLastError();
}

cudaError_t LaunchCrossEntropyGradient(const CudaCrossEntropyParams& p, const float* log_sum,
                                       const float* weights, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(p.rows);
  ChooseType(p.type, p.vocabulary_size, [&](auto type, auto size) {
    GradientKernel<decltype(type), decltype(size)::value>
        <<<rows, kThreads, 0, stream>>>(p, log_sum, weights);
  });
  return cudaGetLastError();
}

cudaError_t LaunchCrossEntropy(const CudaCrossEntropyParams& p, const float* weights, float* loss,
                               cudaStream_t stream) {
  constexpr int64_t kMaxStaged = 224 * 1024, kMaxStagedTwice = 112 * 1024;  // of 227 KB
  constexpr int kMultiprocessors = 132;
  cudaError_t error = cudaSuccess;
  ChooseType(p.type, p.vocabulary_size, [&](auto type, auto size) {
    using T = decltype(type);
    constexpr int kSize = decltype(size)::value;
    const int64_t bytes = p.vocabulary_size * static_cast<int64_t>(sizeof(T));
    if (kSize == 1 || bytes > kMaxStaged) {
      WholeKernel<T, kSize>
          <<<static_cast<unsigned>(p.rows), kThreads, 0, stream>>>(p, weights, loss);
      return;
    }
    error = cudaFuncSetAttribute(StagedKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 kMaxStaged);
    if (error != cudaSuccess) return;
    const int64_t blocks = kMultiprocessors * (bytes > kMaxStagedTwice ? 1 : 2);
    StagedKernel<T><<<static_cast<unsigned>(std::min(p.rows, blocks)), kThreads,
                      static_cast<size_t>(bytes), stream>>>(p, weights, loss);
  });
  return error != cudaSuccess ? error : cudaGetLastError();
}

}  // namespace hanlin
