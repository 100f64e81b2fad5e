// Causal attention over a paged KV cache, one function for prefill and decode, and the kernel that
// fills the cache.
//
// One block holds kKvBlockTokens tokens of one layer, for all heads of this rank; T is float or
// BFloat16:
//
//     [heads]{ K: T [head_dim][16 tokens] | V: T [16 tokens][head_dim rounded up to 16] }
//
// so that a register holds 16 tokens of one K dimension (scores) and 16 dimensions of one V row
// (outputs). Token `position` of a sequence lies in slot position % 16 of block
// block_table[position / 16]. The owner of the pool chooses where blocks lie: block b of a layer
// starts at base + b * block_stride_bytes.
//
// Batch-invariant: a query row walks its KV blocks in order (online softmax, one step a block),
// each score one accumulator over head_dim; neither the neighbours, chunk borders, block numbers
// nor threads change a bit. Arithmetic is fp32, also on a bf16 cache. Parallel over (row tile,
// head), balanced by context length.
#ifndef HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_H_
#define HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/threading/thread_pool.h"
#include "kernels/attention/cpu/attention_params.h"
#include "kernels/base/types.h"

namespace hanlin {

// Bytes of one block of one layer; a multiple of 32, so blocks may lie back to back.
size_t KvBlockBytes(ComputeType type, int heads, int head_dim);

// Rows are fp32; element (row, head, d) of q is q[row * row_stride + head * head_stride + d], and
// alike for k and v, so the output of a fused QKV layer is read in place, in [3, heads, d] or
// [heads, 3, d] order.
struct KvWriteParams {
  std::span<const AttentionSegment> segments;
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
  KvCache cache;
};
// Stores k and v of every row in the cache, rounded to its type.
void WriteKv(const KvWriteParams& params, ThreadPool& pool);

// out[row][head][:] = softmax(q . K / sqrt(head_dim)) V over the positions 0 .. position of the
// row, which must all be in the cache (WriteKv first).
struct AttentionParams {
  std::span<const AttentionSegment> segments;
  const float* q = nullptr;
  int64_t row_stride = 0;   // of q
  int64_t head_stride = 0;  // of q
  KvCache cache;
  void* out = nullptr;     // [rows, heads, head_dim], head h of a row at h * head_dim
  int64_t out_stride = 0;  // elements from row to row
  ComputeType out_type = ComputeType::kFloat32;
};
void Attention(const AttentionParams& params, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CPU_ATTENTION_H_
