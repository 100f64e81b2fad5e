// Causal attention over whole sequences on the GPU, forward and backward, for training: the law of
// kernels/attention/cpu/causal_attention.h, packed documents and dropout's mask included. Fast
// path: bf16, head sizes 64, 80 and 128, on the tensor cores. Plain path: fp32 and bf16, any
// multiple of 8 up to 128. Scores, softmax and sums are fp32 on both; the fast path rounds the
// probabilities and their gradients to bf16 before the products with V, K, Q and dO.
//
// Neither allocates nor waits, may be captured in a graph, and gives the same bits for the same
// call: a row of dQ, dK or dV is the work of one warpgroup (or block) and there are no atomics, at
// the price of computing the scores a second time in the backward pass.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_H_

#include <cstddef>

#include "common/status/status.h"
#include "kernels/attention/cuda/causal_attention_params.h"

namespace hanlin {

// out [sequences * length, heads, head_dim]; writes params.log_sum.
absl::Status CudaCausalAttention(const CudaCausalAttentionParams& params, void* out,
                                 cudaStream_t stream);

// What the backward pass needs, by the type and the sizes in `params`; its contents mean nothing
// between calls.
size_t CausalAttentionWorkspaceBytes(const CudaCausalAttentionParams& params);

absl::Status CudaCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                         const CudaCausalAttentionGradients& gradients,
                                         cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_H_
