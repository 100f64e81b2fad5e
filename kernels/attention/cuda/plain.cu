// Attention for any type and head size, without tensor cores, and the kernel that stores K and V
// of new tokens. One block serves a head of a row: warp w takes the positions w, w + kWarps, ...
// and lane l the elements l, l + 32, ... of the head; the warps' results are merged in their order.
#include <cmath>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/base/cuda/launch.cuh"
#include "kernels/base/cuda/ptx.cuh"
#include "kernels/base/cuda/vectors.cuh"

namespace hanlin {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kElements = kPagedMaxHeadDim / 32;  // of a head, in one lane
constexpr int kWriteThreads = 256;

__device__ __forceinline__ float Load(const float* value) { return __ldcg(value); }
__device__ __forceinline__ float Load(const BFloat16* value) {
  return LowBFloat16(__ldcg(&value->bits));
}
__device__ __forceinline__ void Store(float value, float* to) { *to = value; }
__device__ __forceinline__ void Store(float value, BFloat16* to) {
  *to = {static_cast<uint16_t>(PackBFloat16(value, 0.0f))};
}

// A row of qkv, and where its token stands.
struct Row {
  int64_t row;
  int sequence;
  int position;
};

// Rows of a launch: `index` counts the rows of a segment, or of the batch when decoding. Find is
// false where there is none.
struct DecodeRows {
  const int32_t* context;
  __device__ bool Find(int index, int, Row* row) const {
    *row = {index, index, __ldcg(context + index)};
    return row->position >= 0;
  }
};
struct PrefillRows {
  const PrefillSegment* segments;
  __device__ bool Find(int index, int segment, Row* row) const {
    const int4 s = __ldcg(reinterpret_cast<const int4*>(segments + segment));
    const PrefillSegment found = {s.x, s.y, s.z, s.w};
    *row = {static_cast<int64_t>(found.first_token) + index, found.sequence,
            found.context_tokens + index};
    return index < found.num_tokens;
  }
};

__device__ __forceinline__ int64_t BlockOf(const PagedKv& kv, int sequence, int position) {
  return __ldcg(kv.block_tables + sequence * kv.table_stride + position / kPagedKvTokens);
}

// Vectors of 16 bytes; `head_vectors` of them are a head.
template <typename Rows>
__global__ __launch_bounds__(kWriteThreads) void WriteKvKernel(const __grid_constant__ PagedKv kv,
                                                               Rows rows, int head_vectors,
                                                               const uint4* qkv) {
  ptx::StartNext();
  ptx::WaitForPrevious();
  Row row;
  if (!rows.Find(blockIdx.x, blockIdx.z, &row)) return;
  const int vectors = kv.heads * head_vectors;  // of K, and of V
  const uint4* source = qkv + row.row * 3 * vectors + vectors;
  uint4* block = static_cast<uint4*>(kv.base) +
                 BlockOf(kv, row.sequence, row.position) * 2 * kPagedKvTokens * vectors;
  for (int i = threadIdx.x; i < 2 * vectors; i += kWriteThreads) {
    const int head = i / head_vectors;  // K's, then V's
    const int slot = head * kPagedKvTokens + row.position % kPagedKvTokens;
    block[slot * head_vectors + i % head_vectors] = __ldcg(source + i);
  }
}

template <typename T, typename Rows>
__global__ __launch_bounds__(kThreads) void PlainKernel(const __grid_constant__ PagedKv kv,
                                                        Rows rows, const T* qkv, T* out) {
  __shared__ float maxima[kWarps], sums[kWarps], partial[kWarps][kPagedMaxHeadDim];
  ptx::StartNext();
  ptx::WaitForPrevious();
  Row row;
  if (!rows.Find(blockIdx.x, blockIdx.z, &row)) return;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int dim = kv.head_dim;
  const float scale = 1.0f / sqrtf(static_cast<float>(dim));
  const int64_t tile = static_cast<int64_t>(kPagedKvTokens) * dim;
  float q[kElements], o[kElements] = {};
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    const int d = lane + 32 * j;
    q[j] = d < dim ? Load(qkv + (row.row * 3 * kv.heads + head) * dim + d) * scale : 0.0f;
  }
  float maximum = -INFINITY, sum = 0.0f;
  for (int position = warp; position <= row.position; position += kWarps) {
    const T* k = static_cast<const T*>(kv.base) +
                 (BlockOf(kv, row.sequence, position) * 2 * kv.heads + head) * tile +
                 position % kPagedKvTokens * dim;
    const T* v = k + kv.heads * tile;
    float product = 0.0f;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      if (lane + 32 * j < dim) product = fmaf(q[j], Load(k + lane + 32 * j), product);
    }
    const float score = WarpSum(product);
    const float larger = fmaxf(maximum, score);
    const float factor = expf(maximum - larger), weight = expf(score - larger);
    maximum = larger;
    sum = sum * factor + weight;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      if (lane + 32 * j < dim) o[j] = o[j] * factor + weight * Load(v + lane + 32 * j);
    }
  }
  if (lane == 0) {
    maxima[warp] = maximum;
    sums[warp] = sum;
  }
  for (int j = 0; j < kElements; ++j) partial[warp][lane + 32 * j] = o[j];
  __syncthreads();
  const int d = threadIdx.x;
  if (d >= dim) return;
  float total = 0.0f, value = 0.0f;
  float largest = maxima[0];
  for (int w = 1; w < kWarps; ++w) largest = fmaxf(largest, maxima[w]);
  for (int w = 0; w < kWarps; ++w) {
    const float factor = expf(maxima[w] - largest);
    total += factor * sums[w];
    value += factor * partial[w][d];
  }
  Store(value / total, out + (row.row * kv.heads + head) * dim + d);
}

template <typename Rows>
cudaError_t LaunchWrite(const PagedKv& kv, Rows rows, dim3 grid, const void* qkv,
                        cudaStream_t stream) {
  const int head_vectors = static_cast<int>(kv.head_dim * SizeOf(kv.type) / 16);
  return LaunchDependent(WriteKvKernel<Rows>, {.grid = grid, .block = dim3(kWriteThreads)}, stream,
                         kv, rows, head_vectors, static_cast<const uint4*>(qkv));
}

template <typename Rows>
cudaError_t LaunchPlain(const PagedKv& kv, Rows rows, dim3 grid, const void* qkv, void* out,
                        cudaStream_t stream) {
  const LaunchShape shape = {.grid = grid, .block = dim3(kThreads)};
  if (kv.type == ComputeType::kFloat32) {
    return LaunchDependent(PlainKernel<float, Rows>, shape, stream, kv, rows,
                           static_cast<const float*>(qkv), static_cast<float*>(out));
  }
  return LaunchDependent(PlainKernel<BFloat16, Rows>, shape, stream, kv, rows,
                         static_cast<const BFloat16*>(qkv), static_cast<BFloat16*>(out));
}

}  // namespace

cudaError_t LaunchPlainPrefillAttention(const PrefillAttentionParams& p, cudaStream_t stream) {
  const PrefillRows rows{p.segments};
  const cudaError_t error =
      LaunchWrite(p.kv, rows, dim3(p.max_tokens, 1, p.num_segments), p.qkv, stream);
  if (error != cudaSuccess) return error;
  return LaunchPlain(p.kv, rows, dim3(p.max_tokens, p.kv.heads, p.num_segments), p.qkv, p.out,
                     stream);
}

cudaError_t LaunchPlainDecodeAttention(const DecodeAttentionParams& p, cudaStream_t stream) {
  const DecodeRows rows{p.context};
  const cudaError_t error = LaunchWrite(p.kv, rows, dim3(p.batch), p.qkv, stream);
  if (error != cudaSuccess) return error;
  return LaunchPlain(p.kv, rows, dim3(p.batch, p.kv.heads), p.qkv, p.out, stream);
}

}  // namespace hanlin
