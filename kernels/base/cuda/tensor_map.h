// Maps of matrices for copies of boxes into shared memory (ptx::TensorCopy).
#ifndef HANLIN_KERNELS_BASE_CUDA_TENSOR_MAP_H_
#define HANLIN_KERNELS_BASE_CUDA_TENSOR_MAP_H_

#include <cuda.h>

#include <cstdint>

#include "common/status/status.h"

namespace hanlin {

// A row-major bf16 matrix, and the boxes that are copied from it. A box arrives row by row,
// swizzled over its row: of 64 columns (128 bytes) or 16 (32 bytes). With `matrices` the map has a
// third dimension: so many of them, one behind the other, and no box reaches into the next.
struct TensorBoxes {
  const void* matrix = nullptr;  // aligned to 16 bytes
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_elements = 0;  // from row to row, a multiple of 8
  int box_rows = 0;
  int box_columns = 64;
  int64_t matrices = 0;
};

absl::Status EncodeTensorMap(const TensorBoxes& boxes, CUtensorMap* map);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_TENSOR_MAP_H_
