// Checks before the launch.
#include "kernels/decode_step/cuda/decode_step.h"

#include <initializer_list>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

// The larger of the two rings with what stands beside it.
constexpr size_t kSharedMemoryWanted = 232448;

bool HasHeadDim(int head_dim) { return head_dim == 64 || head_dim == 80; }

bool IsAligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers) {
    if (pointer == nullptr || reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  }
  return true;
}

}  // namespace

bool HasDecodeStep(ComputeType type, int hidden, int heads, int ffn, int layers, int max_positions,
                   const CudaDevice& device) {
  return device.hopper && type == ComputeType::kBFloat16 && heads == kDecodeStepHeads &&
         hidden % heads == 0 && HasHeadDim(hidden / heads) && ffn == 4 * hidden &&
         layers <= kDecodeStepMaxLayers && max_positions <= kDecodeStepMaxPositions &&
         device.multiprocessors >= kDecodeStepBlocks &&
         device.shared_memory_per_block >= kSharedMemoryWanted;
}

absl::Status DecodeStep(const DecodeStepParams& params, cudaStream_t stream) {
  const PagedKv& kv = params.kv;
  if (kv.type != ComputeType::kBFloat16 || kv.heads != kDecodeStepHeads ||
      !HasHeadDim(kv.head_dim) || params.hidden != kv.heads * kv.head_dim ||
      params.num_layers < 1 || params.num_layers > kDecodeStepMaxLayers) {
    return InvalidArgument(
        "decode step of {} layers of {} heads of {}, width {}; want up to {} layers of {} heads of "
        "64 or 80 in bf16",
        params.num_layers, kv.heads, kv.head_dim, params.hidden, kDecodeStepMaxLayers,
        kDecodeStepHeads);
  }
  if (!IsAligned({params.layers, kv.base, params.x, params.qkv, params.attention, params.mlp,
                  params.exchange}) ||
      params.kv_layer_bytes % 16 != 0 || kv.block_tables == nullptr || params.context == nullptr) {
    return InvalidArgument("a decode step wants every array present and aligned to 16 bytes");
  }
  return CudaStatus(LaunchDecodeStep(params, stream), "launch of a decode step");
}

}  // namespace hanlin
