// Decode of a whole transformer layer at batch 1 in two kernels, for the family's base model in
// bf16 (decode_block_params.h says how and why). All calls put work into the stream, neither
// allocate nor wait, and may be captured; one thread at a time a stream. Sums are fp32 in a fixed
// order; activations are rounded to bf16 where the separate kernels round them.
#ifndef HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_H_
#define HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_H_

#include "common/cuda/device.h"
#include "common/status/status.h"
#include "kernels/decode_block/cuda/decode_block_params.h"

namespace hanlin {

// Whether the kernels do such a model on such a device.
bool HasDecodeBlocks(ComputeType type, int hidden, int heads, int ffn, int max_positions,
                     const CudaDevice& device);

// Packs row-major weights, all on the device: qkv [3 hidden, hidden] in [3, heads, head_dim] order,
// out [hidden, hidden] -> packed [kPackedAttentionElements]; up [ffn, hidden], down [hidden, ffn]
// -> packed [kPackedMlpElements], 16-byte aligned.
absl::Status PackAttentionBlock(const BFloat16* qkv, const BFloat16* out, BFloat16* packed,
                                cudaStream_t stream);
absl::Status PackMlpBlock(const BFloat16* up, const BFloat16* down, BFloat16* packed,
                          cudaStream_t stream);

// INVALID_ARGUMENT for other shapes and for missing or unaligned pointers.
absl::Status AttentionBlock(const AttentionBlockParams& params, cudaStream_t stream);
absl::Status MlpBlock(const MlpBlockParams& params, cudaStream_t stream);

// x = the residual stream behind the last MLP block.
absl::Status FinishBlocks(const ResidualInput& in, float* x, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_DECODE_BLOCK_CUDA_DECODE_BLOCK_H_
