// The driver's encoder, found at run time.
#include "kernels/gemm/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "common/cuda/status.h"

namespace hanlin {
namespace {

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

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

absl::Status EncodeTensorMap(const void* matrix, int64_t rows, int64_t k, int box_rows,
                             CUtensorMap* map) {
  static const absl::StatusOr<EncodeTiled*> encode = FindEncodeTiled();
  if (!encode.ok()) return encode.status();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(k) * 2};
  const cuuint32_t box[] = {kTensorMapDepth, static_cast<cuuint32_t>(box_rows)};
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

absl::Status CheckTensorOperands(std::string_view name, const GemmParams& params) {
  if (params.type != ComputeType::kBFloat16) return InvalidArgument("{} wants bf16", name);
  if (params.weight == nullptr || params.x == nullptr || params.y == nullptr) {
    return InvalidArgument("{} needs weight, x and y", name);
  }
  if (!IsAligned(params.weight) || !IsAligned(params.x) || !IsAligned(params.y)) {
    return InvalidArgument("{} wants weight, x and y aligned to 16 bytes", name);
  }
  return absl::OkStatus();
}

}  // namespace hanlin
