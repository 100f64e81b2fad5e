// Checks, tensor maps, launch.
#include "kernels/gemm/cuda/skinny.h"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

// The next kernel may start when this many blocks of k are left to copy: earlier, its copies would
// only take the memory's time from this one's.
constexpr int kLead = 12;

using EncodeTiled = CUresult(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                             const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                             const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                             CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, through the runtime: the program does not link the driver.
absl::StatusOr<EncodeTiled*> FindEncodeTiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  RETURN_IF_CUDA_ERROR(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                        cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) {
    return FailedPrecondition("the driver has no cuTensorMapEncodeTiled (CUDA 12)");
  }
  return reinterpret_cast<EncodeTiled*>(function);
}

// A row-major bf16 matrix [rows, k], copied in boxes of box_rows x kSkinnyDepth.
absl::Status EncodeMap(const void* matrix, int64_t rows, int64_t k, int box_rows,
                       CUtensorMap* map) {
  static const absl::StatusOr<EncodeTiled*> encode = FindEncodeTiled();
  if (!encode.ok()) return encode.status();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(k) * 2};
  const cuuint32_t box[] = {kSkinnyDepth, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t element_strides[] = {1, 1};
  const CUresult result =
      (*encode)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), sizes, strides,
                box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return Internal("tensor map of [{}, {}], boxes of {} rows: driver error {}", rows, k, box_rows,
                    static_cast<int>(result));
  }
  return absl::OkStatus();
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

absl::Status Check(const GemmParams& params, const SkinnyPlan& plan) {
  if (params.type != ComputeType::kBFloat16) return InvalidArgument("skinny product wants bf16");
  if (params.m < 1 || params.m > (1 << 21) || params.n < 1 || params.n > (1 << 21) ||
      params.k < 8 || params.k % 8 != 0 || params.k > (1 << 20)) {
    return InvalidArgument("skinny product of m {}, n {}, k {}", params.m, params.n, params.k);
  }
  if (params.weight == nullptr || params.x == nullptr || params.y == nullptr) {
    return InvalidArgument("skinny product needs weight, x and y");
  }
  if (!IsAligned(params.weight) || !IsAligned(params.x) || !IsAligned(params.y)) {
    return InvalidArgument("skinny product wants weight, x and y aligned to 16 bytes");
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
  RETURN_IF_ERROR(EncodeMap(params.weight, params.n, params.k, plan.rows, &arguments.weight_map));
  RETURN_IF_ERROR(EncodeMap(params.x, params.m, params.k, plan.columns, &arguments.x_map));
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
