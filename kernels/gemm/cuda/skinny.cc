// Checks, tensor maps, launch.
#include "kernels/gemm/cuda/skinny.h"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/cuda/status.h"
#include "kernels/gemm/cuda/tensor_map.h"

namespace hanlin {
namespace {

// The next kernel may start when this many blocks of k are left to copy: earlier, its copies would
// only take the memory's time from this one's.
constexpr int kLead = 12;

absl::Status Check(const GemmParams& params, const SkinnyPlan& plan) {
  RETURN_IF_ERROR(CheckTensorOperands("skinny product", params));
  if (params.m < 1 || params.m > (1 << 21) || params.n < 1 || params.n > (1 << 21) ||
      params.k < 8 || params.k % 8 != 0 || params.k > (1 << 20)) {
    return InvalidArgument("skinny product of m {}, n {}, k {}", params.m, params.n, params.k);
  }
  if (plan.rows < 8 || plan.rows % 8 != 0 || plan.rows > kSkinnyMaxRows || plan.split < 1 ||
      plan.split > kSkinnyMaxSplit || plan.stages < 2 * SkinnyWays(plan.rows) ||
      plan.stages % SkinnyWays(plan.rows) != 0 || plan.stages > kSkinnyMaxStages ||
      SkinnyRingBytes(plan.rows, plan.columns, plan.stages) <
          SkinnySumBytes(plan.rows, plan.columns)) {
    return InvalidArgument("skinny plan of {} rows, split {}, {} columns, {} stages", plan.rows,
                           plan.split, plan.columns, plan.stages);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SkinnyGemm(const GemmParams& params, const SkinnyPlan& plan, cudaStream_t stream) {
  RETURN_IF_ERROR(Check(params, plan));
  SkinnyArguments arguments = {};
  RETURN_IF_ERROR(
      EncodeTensorMap(params.weight, params.n, params.k, plan.rows, &arguments.weight_map));
  RETURN_IF_ERROR(EncodeTensorMap(params.x, params.m, params.k, plan.columns, &arguments.x_map));
  arguments.m = params.m;
  arguments.n = params.n;
  arguments.rows = plan.rows;
  arguments.split = plan.split;
  arguments.k_blocks = static_cast<int>((params.k + kSkinnyDepth - 1) / kSkinnyDepth);
  arguments.stages = plan.stages;
  arguments.lead = kLead;
  arguments.epilogue = params.epilogue;
  arguments.bias = params.bias;
  arguments.y = params.y;
  arguments.next = params.next;
  return CudaStatus(LaunchSkinny(arguments, plan.columns, stream), "launch of the skinny product");
}

}  // namespace hanlin
