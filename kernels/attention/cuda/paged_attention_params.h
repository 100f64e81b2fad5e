// Plain data of attention over the paged KV cache on the device, shared by host and device code.
//
// The cache of one layer is an array of blocks of kPagedKvTokens positions:
//
//     [num_blocks][2 (K, V)][heads][16 positions][head_dim]   of `type`
//
// so that the 16 keys (or values) of a head are one contiguous piece. Position p of the sequence in
// row s of the block tables lies in block block_tables[s * table_stride + p / 16], slot p % 16.
// Slots that no token was written to may hold anything, NaN included.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_PARAMS_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_PARAMS_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int kPagedKvTokens = 16;
inline constexpr int kPagedMaxHeadDim = 128;

struct PagedKv {
  ComputeType type = ComputeType::kBFloat16;  // of the cache, qkv and the output
  int heads = 0;                              // of this rank
  int head_dim = 0;                           // a multiple of 8 up to kPagedMaxHeadDim
  void* base = nullptr;                       // of one layer, 16-byte aligned
  const int32_t* block_tables = nullptr;      // [sequences][table_stride] on the device
  int64_t table_stride = 0;                   // entries a sequence
};

// One new token a sequence. Row b of qkv and out belongs to row b of context and block_tables.
struct DecodeAttentionParams {
  PagedKv kv;
  int batch = 0;
  // [batch] on the device: tokens in the cache before this step, hence the position of the new
  // token. Negative: a padded row, for which nothing is read or written.
  const int32_t* context = nullptr;
  const void* qkv = nullptr;  // [batch][3][heads][head_dim], 16-byte aligned
  void* out = nullptr;        // [batch][heads][head_dim], 16-byte aligned
};

// How decode attention is laid out on the device; PlanDecodeAttention chooses it. A head of a
// sequence is served by a cluster of blocks; warp i of all its warps takes the cache blocks i, i +
// cluster * warps, ... and the partial results are merged in the order of the warps. The bits of a
// result depend on cluster * warps and on the context, on nothing else.
struct DecodeAttentionPlan {
  bool plain = false;  // any head size and type, slow; the rest does not matter then
  int cluster = 1;     // blocks a (sequence, head)
  int warps = 0;       // a block
  int stages = 1;      // cache blocks that a warp has in flight
  size_t shared_bytes = 0;
};

// A run of prompt tokens of one sequence. Its context is in the cache already, no matter which call
// before this one put it there.
struct PrefillSegment {
  int32_t first_token = 0;     // row of qkv and out
  int32_t num_tokens = 0;      // 0: nothing to do
  int32_t context_tokens = 0;  // positions in the cache before this step
  int32_t sequence = 0;        // row of block_tables
};

struct PrefillAttentionParams {
  PagedKv kv;
  int num_segments = 0;
  int max_tokens = 0;                        // the largest num_tokens; sizes the grid
  int tokens = 0;                            // rows of qkv and out
  bool plain = false;                        // no Hopper: the plain path for all shapes
  const PrefillSegment* segments = nullptr;  // [num_segments] on the device
  const void* qkv = nullptr;                 // [tokens][3][heads][head_dim], 16-byte aligned
  void* out = nullptr;                       // [tokens][heads][head_dim], 16-byte aligned
};

cudaError_t LaunchDecodeAttention(const DecodeAttentionParams& params,
                                  const DecodeAttentionPlan& plan, cudaStream_t stream);
// Boxes of a head's first elements, 64 at a time, and of the 16 that remain of a head of 80: of 64
// rows of qkv, and of the 16 positions of a block of the cache, whose rows are the positions of all
// heads of K and V of all blocks.
struct PrefillMaps {
  CUtensorMap qkv, qkv_rest, cache, cache_rest;
};

cudaError_t LaunchPrefillAttention(const PrefillAttentionParams& params, const PrefillMaps& maps,
                                   cudaStream_t stream);
// The plain path, which stores the new tokens' K and V in a kernel of its own first.
cudaError_t LaunchPlainDecodeAttention(const DecodeAttentionParams& params, cudaStream_t stream);
cudaError_t LaunchPlainPrefillAttention(const PrefillAttentionParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_PARAMS_H_
