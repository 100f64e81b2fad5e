// Causal attention over whole sequences, forward and backward, for training. Several documents may
// share a row: a token sees the tokens of its own document that are not after it.
//
// qkv holds the output of the fused layer, [tokens][3][heads][head_dim]; tokens of one sequence are
// consecutive. Nothing but one number a query and head (log of the sum of exponentials) is kept for
// the backward pass, which computes the probabilities again, kQueryBlock queries at a time.
//
// Deterministic: a (sequence, head) is the work of one thread and its blocks are added in ascending
// order. Dropout on the probabilities follows elementwise.h with row = the query's token number
// (from dropout.first_row) and column = (first_head + head) * 2^20 + the key's position in the
// sequence, so it is the same under every tensor-parallel degree.
#ifndef HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_H_
#define HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/array.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

inline constexpr int64_t kMaxTrainLength = int64_t{1} << 20;

struct CausalAttentionParams {
  int64_t sequences = 0;
  int64_t length = 0;  // tokens of a sequence, at most kMaxTrainLength
  int64_t heads = 0;
  int64_t head_dim = 0;
  ConstArray qkv;                           // [sequences * length, 3, heads, head_dim]
  const int32_t* document_begin = nullptr;  // [sequences * length] first position of the token's
                                            // document in its sequence; null: one document
  float scale = 1;
  int32_t first_head = 0;  // of this rank, for dropout
  DropoutParams dropout;
  ComputeType operands = ComputeType::kFloat32;  // what the products round their operands to
  float* log_sum = nullptr;  // [sequences, heads, length]: written by forward, read by backward
};

// out [sequences * length, heads, head_dim]
void CausalAttention(const CausalAttentionParams& params, Array out, ThreadPool& pool);

// dqkv [sequences * length, 3, heads, head_dim], overwritten. `out` is what forward wrote.
void CausalAttentionBackward(const CausalAttentionParams& params, ConstArray out, const float* dout,
                             Array dqkv, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CPU_CAUSAL_ATTENTION_H_
