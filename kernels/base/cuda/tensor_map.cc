// The driver's encoder, found at run time.
#include "kernels/base/cuda/tensor_map.h"

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

}  // namespace

absl::Status EncodeTensorMap(const TensorBoxes& boxes, CUtensorMap* map) {
  static const absl::StatusOr<EncodeTiled*> encode = FindEncodeTiled();
  if (!encode.ok()) return encode.status();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(boxes.columns),
                              static_cast<cuuint64_t>(boxes.rows),
                              static_cast<cuuint64_t>(boxes.matrices)};
  const cuuint64_t row_bytes = static_cast<cuuint64_t>(boxes.row_elements) * 2;
  const cuuint64_t strides[] = {row_bytes, row_bytes * boxes.rows};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(boxes.box_columns),
                            static_cast<cuuint32_t>(boxes.box_rows), 1};
  const cuuint32_t element_strides[] = {1, 1, 1};
  const CUresult result =
      (*encode)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, boxes.matrices > 0 ? 3 : 2,
                const_cast<void*>(boxes.matrix), sizes, strides, box, element_strides,
                CU_TENSOR_MAP_INTERLEAVE_NONE,
                boxes.box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return Internal("tensor map of [{}, {}], boxes of {} x {}: driver error {}", boxes.rows,
                    boxes.columns, boxes.box_rows, boxes.box_columns, static_cast<int>(result));
  }
  return absl::OkStatus();
}

}  // namespace hanlin
