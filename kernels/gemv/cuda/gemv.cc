// Checks before the launch.
#include "kernels/gemv/cuda/gemv.h"

#include "common/cuda/status.h"

namespace hanlin {
namespace {

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

absl::Status Gemv(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream) {
  if (params.n < 1 || params.k < 8 || params.k % 8 != 0 || params.batch < 1 ||
      params.batch > kGemvMaxBatch) {
    return InvalidArgument("gemv of n {}, k {}, batch {}", params.n, params.k, params.batch);
  }
  if (params.weight == nullptr || params.x == nullptr || params.y == nullptr) {
    return InvalidArgument("gemv needs weight, x and y");
  }
  const bool has_norm = params.norm_weight != nullptr && params.norm_bias != nullptr;
  if (params.input == GemvInput::kLayerNorm && !has_norm) {
    return InvalidArgument("gemv with LayerNorm needs its weight and bias");
  }
  if (!IsAligned(params.weight) || !IsAligned(params.x) || !IsAligned(params.norm_weight) ||
      !IsAligned(params.norm_bias)) {
    return InvalidArgument("gemv wants weight, x and norm parameters aligned to 16 bytes");
  }
  if (plan.blocks < 1 || plan.chunk < 8 || plan.chunk % 8 != 0) {
    return InvalidArgument("gemv plan of {} blocks, chunk {}", plan.blocks, plan.chunk);
  }
  return CudaStatus(LaunchGemv(params, plan, stream), "launch of gemv");
}

}  // namespace hanlin
