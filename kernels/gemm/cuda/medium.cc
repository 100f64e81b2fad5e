// Checks, tensor maps, launch.
#include "kernels/gemm/cuda/medium.h"

#include <cstdint>

#include "common/cuda/status.h"
#include "kernels/gemm/cuda/tensor_map.h"

namespace hanlin {
namespace {

// The next kernel may start when this many blocks of k are left to copy: earlier, its copies would
// only take the memory's time from this one's.
constexpr int kLead = 12;

absl::Status Check(const GemmParams& params, const MediumPlan& plan) {
  RETURN_IF_ERROR(CheckTensorOperands("medium product", params));
  if (params.m < 1 || params.m > kMediumRows || params.n < 1 || params.n > (1 << 21) ||
      params.n % 2 != 0 || params.k < 8 || params.k % 8 != 0 || params.k > (1 << 20)) {
    return InvalidArgument("medium product of m {}, n {}, k {}", params.m, params.n, params.k);
  }
  if (plan.split < 1 || plan.split > kMediumMaxSplit || plan.stages < 2 * kMediumWays ||
      plan.stages % kMediumWays != 0 || plan.stages > kMediumMaxStages ||
      MediumStageBytes(plan.columns) * plan.stages <
          MediumOwnBytes(plan.columns) + MediumSentBytes(plan.columns, plan.split)) {
    return InvalidArgument("medium plan of {} columns, split {}, {} stages", plan.columns,
                           plan.split, plan.stages);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MediumGemm(const GemmParams& params, const MediumPlan& plan, cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params, plan));
  static_assert(kMediumDepth == kTensorMapDepth);
  MediumArguments arguments = {};
  RETURN_IF_ERROR(
      EncodeTensorMap(params.weight, params.n, params.k, plan.columns, &arguments.weight_map));
  RETURN_IF_ERROR(EncodeTensorMap(params.x, params.m, params.k, kMediumRows, &arguments.x_map));
  arguments.m = static_cast<int>(params.m);
  arguments.n = params.n;
  arguments.split = plan.split;
  arguments.k_blocks = static_cast<int>((params.k + kMediumDepth - 1) / kMediumDepth);
  arguments.stages = plan.stages;
  arguments.lead = kLead;
  arguments.epilogue = params.epilogue;
  arguments.bias = params.bias;
  arguments.y = params.y;
  arguments.next = params.next;
  return CudaStatus(LaunchMedium(arguments, plan.columns, stream), "launch of the medium product");
}

}  // namespace hanlin
