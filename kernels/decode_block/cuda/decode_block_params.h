// Plain data of the fused decode blocks, shared by host and device code.
//
// A transformer layer of a small model at batch 1 moves so few bytes that its length is the number
// of steps that wait for each other. Here it is two kernels instead of five:
//
//   attention block   x += partial sums of the MLP before; LN1; QKV, KV write, attention and output
//                     projection of one head per cluster of 8 blocks -> one partial sum a head
//   MLP block         x += partial sums of the heads; LN2; up, GELU and down of a slice of the MLP
//                     per block -> one partial sum per cluster of 8 blocks
//
// Whoever reads the residual stream adds up the partial sums, in a fixed order: no atomics, the
// same bits each time. The blocks of a cluster share that work. The weights of a kernel lie packed,
// one contiguous piece a block, so that a single bulk copy, begun while the kernel ahead computes,
// brings them all into shared memory.
#ifndef HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_PARAMS_H_
#define HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_PARAMS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/attention/cuda/paged_attention_params.h"
#include "kernels/base/types.h"

namespace hanlin {

// The one shape that is compiled: the family's base model. Two kernels of a wider layer no longer
// fit a multiprocessor side by side, and then the five separate ones are as fast.
inline constexpr int kDecodeBlockHidden = 768;
inline constexpr int kDecodeBlockHeadDim = 64;
inline constexpr int kDecodeBlockHeads = kDecodeBlockHidden / kDecodeBlockHeadDim;
inline constexpr int kDecodeBlockFfn = 4 * kDecodeBlockHidden;
inline constexpr int kDecodeBlockCluster = 8;
inline constexpr int kMlpBlocks = 128;  // thread blocks of the MLP kernel
inline constexpr int kMlpPartials = kMlpBlocks / kDecodeBlockCluster;
// Positions whose keys and values the shared memory of a cluster holds.
inline constexpr int kDecodeBlockMaxContext = 2048;

// bf16 elements of a layer's packed weights.
inline constexpr size_t kPackedAttentionElements =
    size_t{4} * kDecodeBlockHidden * kDecodeBlockHidden;
inline constexpr size_t kPackedMlpElements = size_t{2} * kDecodeBlockFfn * kDecodeBlockHidden;

// The residual stream as a kernel finds it: x + the sum of the partials + bias.
struct ResidualInput {
  const float* x = nullptr;         // [hidden]
  const float* partials = nullptr;  // [kDecodeBlockHeads or kMlpPartials, hidden]; null: none
  const float* bias = nullptr;      // [hidden], read with partials alone; constant
};

struct AttentionBlockParams {
  ResidualInput in;                    // partials of an MLP block
  const float* norm_weight = nullptr;  // [hidden]; constant, as are all weights and biases
  const float* norm_bias = nullptr;
  float epsilon = 1e-5f;
  const BFloat16* packed = nullptr;  // PackAttentionBlock
  const float* qkv_bias = nullptr;   // [3, hidden]
  PagedKv kv;
  const int32_t* context = nullptr;  // [1], as DecodeAttentionParams; negative: position 0
  float* x_out = nullptr;            // [hidden] the residual stream, not in.x
  float* partials_out = nullptr;     // [kDecodeBlockHeads, hidden]
};

struct MlpBlockParams {
  ResidualInput in;  // partials of an attention block, always there
  const float* norm_weight = nullptr;
  const float* norm_bias = nullptr;
  float epsilon = 1e-5f;
  bool gelu_erf = false;             // else the tanh form
  const BFloat16* packed = nullptr;  // PackMlpBlock
  const float* up_bias = nullptr;    // [ffn]
  float* x_out = nullptr;            // [hidden], not in.x
  float* partials_out = nullptr;     // [kMlpPartials, hidden]
};

cudaError_t LaunchPackAttentionBlock(const BFloat16* qkv, const BFloat16* out, BFloat16* packed,
                                     cudaStream_t stream);
cudaError_t LaunchPackMlpBlock(const BFloat16* up, const BFloat16* down, BFloat16* packed,
                               cudaStream_t stream);
cudaError_t LaunchAttentionBlock(const AttentionBlockParams& params, cudaStream_t stream);
cudaError_t LaunchMlpBlock(const MlpBlockParams& params, cudaStream_t stream);
cudaError_t LaunchFinishBlocks(const ResidualInput& in, float* x, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_PARAMS_H_
