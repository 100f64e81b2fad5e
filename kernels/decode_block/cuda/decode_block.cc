// Checks before the launches.
#include "kernels/decode_block/cuda/decode_block.h"

#include <initializer_list>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

// What a block of either kernel needs side by side: 125 and 83 KB, and 1 KB each for the system.
constexpr size_t kSharedMemoryWanted = 210 * 1024;

absl::Status CheckAligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers) {
    if (pointer == nullptr || reinterpret_cast<uintptr_t>(pointer) % 16 != 0) {
      return InvalidArgument("decode blocks want every array present and aligned to 16 bytes");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const ResidualInput& in, const float* x_out) {
  RETURN_IF_ERROR(CheckAligned({in.x, x_out}));
  if (in.x == x_out) return InvalidArgument("a decode block cannot update x in place");
  if (in.partials == nullptr) return absl::OkStatus();
  return CheckAligned({in.partials, in.bias});
}

}  // namespace

bool HasDecodeBlocks(ComputeType type, int hidden, int heads, int ffn, int max_positions,
                     const CudaDevice& device) {
  return device.hopper && type == ComputeType::kBFloat16 && hidden == kDecodeBlockHidden &&
         heads == kDecodeBlockHeads && ffn == kDecodeBlockFfn &&
         max_positions <= kDecodeBlockMaxContext && device.multiprocessors >= kMlpBlocks &&
         device.shared_memory_per_block >= kSharedMemoryWanted;
}

absl::Status PackAttentionBlock(const BFloat16* qkv, const BFloat16* out, BFloat16* packed,
                                cudaStream_t stream) {
  RETURN_IF_ERROR(CheckAligned({qkv, out, packed}));
  return CudaStatus(LaunchPackAttentionBlock(qkv, out, packed, stream), "packing of a layer");
}

absl::Status PackMlpBlock(const BFloat16* up, const BFloat16* down, BFloat16* packed,
                          cudaStream_t stream) {
  RETURN_IF_ERROR(CheckAligned({up, down, packed}));
  return CudaStatus(LaunchPackMlpBlock(up, down, packed, stream), "packing of a layer");
}

absl::Status AttentionBlock(const AttentionBlockParams& params, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckInput(params.in, params.x_out));
  RETURN_IF_ERROR(CheckAligned({params.norm_weight, params.norm_bias, params.packed,
                                params.qkv_bias, params.kv.base, params.partials_out}));
  if (params.kv.type != ComputeType::kBFloat16 || params.kv.heads != kDecodeBlockHeads ||
      params.kv.head_dim != kDecodeBlockHeadDim || params.kv.block_tables == nullptr ||
      params.context == nullptr) {
    return InvalidArgument("attention block of {} heads of {}, want {} of {} in bf16",
                           params.kv.heads, params.kv.head_dim, kDecodeBlockHeads,
                           kDecodeBlockHeadDim);
  }
  return CudaStatus(LaunchAttentionBlock(params, stream), "launch of an attention block");
}

absl::Status MlpBlock(const MlpBlockParams& params, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckInput(params.in, params.x_out));
  RETURN_IF_ERROR(CheckAligned({params.in.partials, params.norm_weight, params.norm_bias,
                                params.packed, params.up_bias, params.partials_out}));
  return CudaStatus(LaunchMlpBlock(params, stream), "launch of an MLP block");
}

absl::Status FinishBlocks(const ResidualInput& in, float* x, cudaStream_t stream) {
  RETURN_IF_ERROR(CheckInput(in, x));
  RETURN_IF_ERROR(CheckAligned({in.partials}));
  return CudaStatus(LaunchFinishBlocks(in, x, stream), "launch of a sum");
}

}  // namespace hanlin
