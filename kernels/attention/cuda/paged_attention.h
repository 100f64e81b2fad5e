// Causal attention over the paged KV cache on the GPU: softmax(q . K / sqrt(head_dim)) V over the
// positions up to the row's own, for one new token a sequence (decode) and for chunks of prompts
// (prefill). Fast path: bf16, head sizes 64, 80 and 128, on Hopper. Plain path: fp32 and bf16, any
// multiple of 8 up to 128, any GPU. Scores, softmax and sums are fp32 on both; the plain path has
// no tensor cores.
//
// Every kernel is launched with programmatic dependent launch, neither allocates nor waits, may be
// captured in a graph, and gives the same bits for the same call. Results do not depend on the
// other rows of the call, how many there are, block numbers, nor (prefill) on where the prompt was
// cut into chunks: always batch-invariant.
//
// What is read before the wait for the kernel ahead: context, the block tables, and K and V of old
// positions (decode only). That is safe if nothing inside the step writes them before the kernel,
// and if the first kernel of the step lets its successor start only after its own wait: then the
// previous step, which wrote the newest of them, is complete.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_H_

#include "common/cuda/device.h"
#include "common/status/status.h"
#include "kernels/attention/cuda/paged_attention_params.h"

namespace hanlin {

// Bytes of one block of one layer.
inline size_t PagedKvBlockBytes(ComputeType type, int heads, int head_dim) {
  return 2 * SizeOf(type) * kPagedKvTokens * static_cast<size_t>(heads) * head_dim;
}

// Pure function of the shape and of the device; the grid does not depend on context lengths, so a
// graph can be replayed whatever they are. INVALID_ARGUMENT for a shape that no kernel does.
absl::StatusOr<DecodeAttentionPlan> PlanDecodeAttention(ComputeType type, int batch, int heads,
                                                        int head_dim, const CudaDevice& device);

// Stores the new tokens' K and V in the cache and attends. `plan` is PlanDecodeAttention's for the
// same type, batch, heads and head size.
absl::Status DecodeAttention(const DecodeAttentionParams& params, const DecodeAttentionPlan& plan,
                             cudaStream_t stream);

// Stores K and V of all segments' tokens in the cache and attends. No segment's context may be what
// another one of the call stores.
absl::Status PrefillAttention(const PrefillAttentionParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_PAGED_ATTENTION_H_
