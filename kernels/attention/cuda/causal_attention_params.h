// Plain data of causal attention for training on the device, shared by host and device code. The
// law is kernels/attention/cpu/causal_attention.h's; what differs is the type of the tensors and
// where the backward pass keeps what it derives once.
#ifndef HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_PARAMS_H_
#define HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_PARAMS_H_

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <vector_types.h>

#include <cstdint>

#include "kernels/base/types.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

// Columns of dropout that belong to a head; kMaxTrainLength.
inline constexpr uint32_t kHeadColumns = 1 << 20;

// All pointers are on the device and aligned to 16 bytes.
struct CudaCausalAttentionParams {
  ComputeType type = ComputeType::kBFloat16;  // of qkv, out and their gradients
  int64_t sequences = 0;                      // at most 65535
  int64_t length = 0;                         // tokens of a sequence, at most kMaxTrainLength
  int64_t heads = 0;                          // of this rank
  int64_t head_dim = 0;                       // a multiple of 8 up to 128
  const void* qkv = nullptr;                  // [sequences * length, 3, heads, head_dim]
  // [sequences * length] first position of the token's document in its sequence: documents are
  // runs of tokens, so it does not decrease along a sequence. Null: one document.
  const int32_t* document_begin = nullptr;
  float scale = 1;         // of the scores, above 0
  int32_t first_head = 0;  // of this rank, for dropout
  DropoutParams dropout;
  float* log_sum = nullptr;  // [sequences, heads, length]: written by forward, read by backward
};

struct CudaCausalAttentionGradients {
  const void* out = nullptr;   // [sequences * length, heads, head_dim], what forward wrote
  const void* dout = nullptr;  // the same shape
  void* dqkv = nullptr;        // [sequences * length, 3, heads, head_dim], overwritten
  float* dbias = nullptr;      // [3, heads, head_dim]; dqkv's sums over the tokens are added
  void* workspace = nullptr;   // CausalAttentionWorkspaceBytes
};

// Positions of a sequence in the statistics below: whole tiles of 64.
inline int64_t PaddedLength(int64_t length) { return (length + 63) / 64 * 64; }

// What the backward kernels read beside the tensors, laid out in the workspace.
struct CausalAttentionState {
  int64_t padded_length = 0;
  // What is added to a query's products with keys, before the scale, so that the exponential is the
  // probability: the log of the sum of exponentials, negative and over the scale. And what is added
  // to those of its gradient with values, minus dot(out, dout). [sequences, heads, padded_length].
  // Queries behind the sequence have minus infinity and 0, which makes their probabilities 0. On
  // the tensor cores the kernel for dQ fills them.
  float2* statistics = nullptr;
  // Of dqkv, [parts, 3, heads, head_dim]: on the tensor cores a part is 64 positions of a sequence,
  // else as LaunchColumnSums divides the tokens.
  float* partial_sums = nullptr;
  int32_t* document_end = nullptr;  // [sequences, length]: position behind the token's document
};

// Fills the statistics, for the plain path.
cudaError_t LaunchStatistics(const CudaCausalAttentionParams& params,
                             const CudaCausalAttentionGradients& gradients,
                             const CausalAttentionState& state, cudaStream_t stream);
// Fills document_end, where there are documents.
cudaError_t LaunchDocumentEnds(const CudaCausalAttentionParams& params,
                               const CausalAttentionState& state, cudaStream_t stream);

cudaError_t LaunchPlainCausalAttention(const CudaCausalAttentionParams& params, void* out,
                                       cudaStream_t stream);
cudaError_t LaunchPlainCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                               const CudaCausalAttentionGradients& gradients,
                                               const CausalAttentionState& state,
                                               cudaStream_t stream);

// Tensor maps of qkv by (column, position, sequence): boxes of kMapRows positions of 64 columns,
// and of 16 for the rest of a head.
struct CausalAttentionMaps {
  CUtensorMap panels, tail;
};
inline constexpr int kMapRows = 64;

// bf16 with head sizes 64, 80 and 128. The backward pass leaves the partial sums.
cudaError_t LaunchCausalAttention(const CudaCausalAttentionParams& params,
                                  const CausalAttentionMaps& maps, void* out, cudaStream_t stream);
cudaError_t LaunchCausalAttentionBackward(const CudaCausalAttentionParams& params,
                                          const CudaCausalAttentionGradients& gradients,
                                          const CausalAttentionState& state, cudaStream_t stream);

// What the latter is made of.
cudaError_t LaunchQueryGradient(const CudaCausalAttentionParams& params,
                                const CudaCausalAttentionGradients& gradients,
                                const CausalAttentionState& state, cudaStream_t stream);
cudaError_t LaunchKeyGradient(const CudaCausalAttentionParams& params,
                              const CudaCausalAttentionGradients& gradients,
                              const CausalAttentionState& state, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ATTENTION_CUDA_CAUSAL_ATTENTION_PARAMS_H_
