// See tensor_map.h.
#include "kernels/gemm/cuda/tensor_map.h"

#include "kernels/base/cuda/tensor_map.h"

namespace hanlin {
namespace {

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

absl::Status EncodeTensorMap(const void* matrix, int64_t rows, int64_t k, int box_rows,
                             CUtensorMap* map) {
  return EncodeTensorMap({.matrix = matrix,
                          .rows = rows,
                          .columns = k,
                          .row_elements = k,
                          .box_rows = box_rows,
                          .box_columns = kTensorMapDepth},
                         map);
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
