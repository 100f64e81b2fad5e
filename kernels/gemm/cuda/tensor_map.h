// Operands of the products that copy by tensor maps.
#ifndef HANLIN_KERNELS_GEMM_CUDA_TENSOR_MAP_H_
#define HANLIN_KERNELS_GEMM_CUDA_TENSOR_MAP_H_

#include <cuda.h>

#include <cstdint>
#include <string_view>

#include "common/status/status.h"
#include "kernels/gemm/cuda/gemm_params.h"

namespace hanlin {

inline constexpr int kTensorMapDepth = 64;  // elements of a row in a box: one 128-byte swizzle row

// A row-major bf16 matrix [rows, k], aligned to 16 bytes, copied in boxes of box_rows x
// kTensorMapDepth.
absl::Status EncodeTensorMap(const void* matrix, int64_t rows, int64_t k, int box_rows,
                             CUtensorMap* map);

// What every such product refuses; `name` is the product's. Sizes are its own to check.
absl::Status CheckTensorOperands(std::string_view name, const GemmParams& params);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_TENSOR_MAP_H_
