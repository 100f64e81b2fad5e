// The attention block of a decode step: a cluster of 8 blocks a head. Each block computes 24 of the
// head's 192 rows of QKV and sends them to all; takes the cache blocks rank, rank + 8, ...; sends
// its part of the softmax to all; and computes 96 rows of the output projection's share of the
// head. What is exchanged goes straight into the shared memory of the receivers and counts on their
// barriers.
//
// Shared memory: packed weights [24][hidden] | [hidden / 8][head_dim], K and V of the block's cache
// blocks, small arrays. Keys and values are loaded before the wait for the kernel ahead: they were
// written by earlier steps, and the step's first kernel starts its successor only after its own
// wait.
#include "kernels/base/cuda/launch.cuh"
#include "kernels/decode_block/cuda/block_common.cuh"

namespace hanlin {
namespace decode_block {
namespace {

constexpr int kQkvRows = 3 * kHeadDim / kCluster;          // a block
constexpr int kOutRows = kHidden / kCluster;               // a block
constexpr int kCacheElements = kPagedKvTokens * kHeadDim;  // of one cache block's K or V of a head
constexpr uint32_t kCacheBytes = kCacheElements * sizeof(__nv_bfloat16);
constexpr int kMaxCacheBlocks = kDecodeBlockMaxContext / kPagedKvTokens / kCluster;  // a block
constexpr int kPackedElements = kQkvRows * kHidden + kOutRows * kHeadDim;            // a block
constexpr int kLanes = kHeadDim / 8;  // that share a position or an output row
constexpr int kGroups = kThreads / kLanes;
static_assert(kQkvRows % kWarps == 0 && kGroups == 2 * kPagedKvTokens);

// Part of a softmax-weighted sum of values: the sum, the maximum of the scores and the sum of
// their exponentials.
struct Part {
  float sum[kHeadDim];
  float max;
  float weight;
  float padding[2];
};

struct Shared {
  __nv_bfloat16 qkv_rows[kQkvRows][kHidden];
  __nv_bfloat16 out_rows[kOutRows][kHeadDim];
  __nv_bfloat16 keys[kMaxCacheBlocks][kCacheElements];
  __nv_bfloat16 values[kMaxCacheBlocks][kCacheElements];
  __nv_bfloat16 normed[kHidden];
  float qkv[3][kHeadDim];
  float attention[kHeadDim];
  Part warp_parts[kWarps];
  Part block_parts[kCluster];
  StreamExchange stream;
  uint64_t loaded, qkv_there, parts_there;
};

// This thread's share of a softmax: kLanes threads hold 8 dimensions each.
struct State {
  float max = -1e30f;
  float weight = 0.0f;
  float sum[8] = {};

  __device__ __forceinline__ void Take(float score, const float (&value)[8]) {
    const float new_max = fmaxf(max, score);
    const float keep = __expf(max - new_max), add = __expf(score - new_max);
    max = new_max;
    weight = weight * keep + add;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = sum[i] * keep + add * value[i];
  }

  __device__ __forceinline__ void MergeLanes(int offset) {
    const float other_max = __shfl_xor_sync(~0u, max, offset);
    const float other_weight = __shfl_xor_sync(~0u, weight, offset);
    const float new_max = fmaxf(max, other_max);
    const float keep = __expf(max - new_max), add = __expf(other_max - new_max);
    max = new_max;
    weight = weight * keep + other_weight * add;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum[i] = sum[i] * keep + __shfl_xor_sync(~0u, sum[i], offset) * add;
    }
  }
};

__device__ __forceinline__ float SumOfLanes(float value) {
#pragma unroll
  for (int offset = 1; offset < kLanes; offset *= 2) {
    value += __shfl_xor_sync(~0u, value, offset);
  }
  return value;
}

// Dimension `d` of `count` parts merged, not yet divided.
__device__ __forceinline__ float MergeParts(const Part* parts, int count, int d, float* max,
                                            float* weight) {
  *max = -1e30f;
  for (int i = 0; i < count; ++i) *max = fmaxf(*max, parts[i].max);
  float sum = 0.0f;
  *weight = 0.0f;
  for (int i = 0; i < count; ++i) {
    const float scale = __expf(parts[i].max - *max);
    *weight += scale * parts[i].weight;
    sum += scale * parts[i].sum[d];
  }
  return sum;
}

// Where the K (0) or V (1) of a head lies in a cache block.
__device__ __forceinline__ __nv_bfloat16* CacheOf(const PagedKv& kv, int block, int which,
                                                  int head) {
  return static_cast<__nv_bfloat16*>(kv.base) +
         ((int64_t{block} * 2 + which) * kDecodeBlockHeads + head) * kCacheElements;
}

// Begins the copies of everything that the kernel ahead does not write; returns how many of the
// cache blocks are this block's.
__device__ __forceinline__ int LoadAhead(const AttentionBlockParams& p, Shared* shared, int head,
                                         int rank, int* context) {
  const int t = threadIdx.x;
  if (t == 0) {
    ptx::BarrierInit(&shared->loaded, 2);
    ptx::BarrierInit(&shared->stream.there, 1);
    ptx::BarrierInit(&shared->qkv_there, 1);
    ptx::BarrierInit(&shared->parts_there, 1);
    ptx::FenceBarrierInit();
    constexpr uint32_t kWeightBytes = kPackedElements * sizeof(__nv_bfloat16);
    ptx::ArriveExpect(&shared->loaded, kWeightBytes);
    ptx::BulkCopyStreaming(shared->qkv_rows, p.packed + int64_t{blockIdx.x} * kPackedElements,
                           kWeightBytes, &shared->loaded);
    ptx::ArriveExpect(&shared->stream.there, StreamExchange::kBytes);
    ptx::ArriveExpect(&shared->qkv_there, 3 * kHeadDim * sizeof(float));
    ptx::ArriveExpect(&shared->parts_there, kCluster * sizeof(Part));
  }
  *context = max(*p.context, 0);
  // The table is read past the context, too, instead of behind it.
  const int mine = rank + t * kCluster;
  const int block = t < kMaxCacheBlocks && mine < p.kv.table_stride ? p.kv.block_tables[mine] : 0;
  const int num_blocks = (*context + kPagedKvTokens - 1) / kPagedKvTokens;
  const int my_blocks = (num_blocks - rank + kCluster - 1) / kCluster;  // 0 when rank lies behind
  __syncthreads();
  if (t == 0) ptx::ArriveExpect(&shared->loaded, my_blocks * 2 * kCacheBytes);
  if (t < my_blocks) {
    ptx::BulkCopyStreaming(shared->keys[t], CacheOf(p.kv, block, 0, head), kCacheBytes,
                           &shared->loaded);
    ptx::BulkCopyStreaming(shared->values[t], CacheOf(p.kv, block, 1, head), kCacheBytes,
                           &shared->loaded);
  }
  return my_blocks;
}

// The block's rows of q, k and v, rounded to bf16, to every block of the cluster. Warp w computes
// three rows and sends them as one piece: bias is the lane's of those rows.
__device__ __forceinline__ void ComputeQkv(Shared* shared, int rank, float bias) {
  constexpr int kRows = kQkvRows / kWarps;
  static_assert(kRows == 3);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float products[kRows];
  WarpProducts<kRows>(shared->qkv_rows[warp * kRows], shared->normed, products);
  const float mine = lane % kRows == 0   ? products[0]
                     : lane % kRows == 1 ? products[1]
                                         : products[2];
  if (lane < kRows * kCluster) {
    const int target = lane / kRows;
    float* const at = &shared->qkv[0][0] + rank * kQkvRows + warp * kRows + lane % kRows;
    ptx::StoreAsync(ptx::ClusterAddress(at, target), RoundToBf16(mine + bias),
                    ptx::ClusterAddress(&shared->qkv_there, target));
  }
}

// The block's part of the softmax, to every block of the cluster. The new token is the share of the
// block whose turn it is.
__device__ __forceinline__ void AttendToMyBlocks(Shared* shared, int rank, int context,
                                                 int my_blocks) {
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int group = t / kLanes, first = t % kLanes * 8;  // dimensions [first, first + 8)
  const float scale = rsqrtf(static_cast<float>(kHeadDim));
  float query[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) query[i] = shared->qkv[0][first + i] * scale;
  State state;
  // Half of the groups take the even blocks, the others the odd ones.
  const int slot = group % kPagedKvTokens;
  for (int i = group / kPagedKvTokens; i < my_blocks; i += 2) {
    const bool there = (rank + i * kCluster) * kPagedKvTokens + slot < context;
    const int at = slot * kHeadDim + first;
    const float score =
        SumOfLanes(Dot8(*reinterpret_cast<const uint4*>(&shared->keys[i][at]), query));
    if (!there) continue;
    float value[8];
    ToFloats(*reinterpret_cast<const uint4*>(&shared->values[i][at]), value);
    state.Take(score, value);
  }
  const int num_blocks = (context + kPagedKvTokens - 1) / kPagedKvTokens;
  if (rank == num_blocks % kCluster && warp == kWarps - 1) {
    float score = 0.0f, value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      score += query[i] * shared->qkv[1][first + i];
      value[i] = shared->qkv[2][first + i];
    }
    score = SumOfLanes(score);
    if (lane < kLanes) state.Take(score, value);
  }
  __syncwarp();
#pragma unroll
  for (int offset = kLanes; offset < 32; offset *= 2) state.MergeLanes(offset);
  if (lane < kLanes) {
    Part& part = shared->warp_parts[warp];
#pragma unroll
    for (int i = 0; i < 8; ++i) part.sum[first + i] = state.sum[i];
    part.max = state.max;
    part.weight = state.weight;
  }
  __syncthreads();
  if (t < kHeadDim) {
    Part mine;
    const float sum = MergeParts(shared->warp_parts, kWarps, t, &mine.max, &mine.weight);
    Part* const part = &shared->block_parts[rank];
    for (int target = 0; target < kCluster; ++target) {
      const uint32_t barrier = ptx::ClusterAddress(&shared->parts_there, target);
      ptx::StoreAsync(ptx::ClusterAddress(&part->sum[t], target), sum, barrier);
      if (t == 0) {
        ptx::StoreAsync(ptx::ClusterAddress(&part->max, target),
                        make_float4(mine.max, mine.weight, 0.0f, 0.0f), barrier);
      }
    }
  }
}

// Stores the new token's K and V: one block of the cluster.
__device__ __forceinline__ void StoreKv(const AttentionBlockParams& p, const Shared* shared,
                                        int head, int context) {
  const int which = threadIdx.x / kHeadDim, d = threadIdx.x % kHeadDim;
  if (which >= 2) return;
  const int block = p.kv.block_tables[context / kPagedKvTokens];
  CacheOf(p.kv, block, which, head)[context % kPagedKvTokens * kHeadDim + d] =
      __float2bfloat16(shared->qkv[1 + which][d]);
}

__global__ void __launch_bounds__(kThreads) AttentionBlockKernel(const AttentionBlockParams p) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared* const shared = reinterpret_cast<Shared*>(memory);
  const int t = threadIdx.x;
  const int head = blockIdx.x / kCluster, rank = blockIdx.x % kCluster;
  int context;
  const int my_blocks = LoadAhead(p, shared, head, rank, &context);
  const int num_blocks = (context + kPagedKvTokens - 1) / kPagedKvTokens;
  ptx::ClusterArriveRelaxed();  // the barriers of the others are set up before anything is sent
  const NormConstants constants(p.norm_weight, p.norm_bias, p.in, rank);
  constexpr int kRows = kQkvRows / kWarps;
  const int row = rank * kQkvRows + t / 32 * kRows + t % 32 % kRows;
  const float bias = p.qkv_bias[row / kHeadDim * kHidden + head * kHeadDim + row % kHeadDim];
  ptx::ClusterWait();
  ptx::WaitForPrevious();

  ResidualNorm<kMlpPartials>(p.in, constants, p.epsilon, rank, p.x_out, shared->normed,
                             &shared->stream);
  ptx::BarrierWait(&shared->loaded, 0);
  ComputeQkv(shared, rank, bias);
  ptx::ClusterBarrierWait(&shared->qkv_there, 0);
  AttendToMyBlocks(shared, rank, context, my_blocks);
  if (rank == (num_blocks + 1) % kCluster) StoreKv(p, shared, head, context);
  ptx::ClusterBarrierWait(&shared->parts_there, 0);
  if (t < kHeadDim) {
    float max, weight;
    const float sum = MergeParts(shared->block_parts, kCluster, t, &max, &weight);
    shared->attention[t] = RoundToBf16(sum / weight);
  }
  __syncthreads();
  const int first = t % kLanes * 8;
  float attention[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) attention[i] = shared->attention[first + i];
  static_assert(kOutRows % kGroups == 0, "all lanes of a warp take part in the sums");
#pragma unroll
  for (int i = t / kLanes; i < kOutRows; i += kGroups) {
    const float sum =
        SumOfLanes(Dot8(*reinterpret_cast<const uint4*>(&shared->out_rows[i][first]), attention));
    if (t % kLanes == 0) p.partials_out[head * kHidden + rank * kOutRows + i] = sum;
  }
}

__global__ void PackAttentionKernel(const __nv_bfloat16* qkv, const __nv_bfloat16* out,
                                    __nv_bfloat16* packed) {
  const int head = blockIdx.x / kCluster, rank = blockIdx.x % kCluster;
  __nv_bfloat16* const piece = packed + int64_t{blockIdx.x} * kPackedElements;
  for (int i = threadIdx.x; i < kQkvRows * kHidden; i += blockDim.x) {
    const int row = rank * kQkvRows + i / kHidden;
    const int source = row / kHeadDim * kHidden + head * kHeadDim + row % kHeadDim;
    piece[i] = qkv[int64_t{source} * kHidden + i % kHidden];
  }
  for (int i = threadIdx.x; i < kOutRows * kHeadDim; i += blockDim.x) {
    const int row = rank * kOutRows + i / kHeadDim;
    piece[kQkvRows * kHidden + i] = out[int64_t{row} * kHidden + head * kHeadDim + i % kHeadDim];
  }
}

}  // namespace
}  // namespace decode_block

cudaError_t LaunchPackAttentionBlock(const BFloat16* qkv, const BFloat16* out, BFloat16* packed,
                                     cudaStream_t stream) {
  decode_block::PackAttentionKernel<<<kDecodeBlockHeads * kDecodeBlockCluster, 256, 0, stream>>>(
      reinterpret_cast<const __nv_bfloat16*>(qkv), reinterpret_cast<const __nv_bfloat16*>(out),
      reinterpret_cast<__nv_bfloat16*>(packed));
  return cudaGetLastError();
}

cudaError_t LaunchAttentionBlock(const AttentionBlockParams& params, cudaStream_t stream) {
  return LaunchDependent(decode_block::AttentionBlockKernel,
                         {.grid = dim3(kDecodeBlockHeads * kDecodeBlockCluster),
                          .block = dim3(decode_block::kThreads),
                          .shared_bytes = sizeof(decode_block::Shared),
                          .cluster = kDecodeBlockCluster},
                         stream, params);
}

}  // namespace hanlin
