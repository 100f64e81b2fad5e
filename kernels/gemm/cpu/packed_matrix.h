// The one layout in which a weight matrix W [n, k] (n outputs, k inputs) is held, read alike by
// GEMV, GEMM and the embedding lookup.
//
// Rows are grouped in panels of 16; a panel is contiguous and walks k, so a vector register holds
// one k of 16 outputs:
//   kFloat32:   float    [panels][k][16]              (row, col) at (row / 16 * k + col) * 16 +
//                                                     row % 16
//   kBFloat16:  BFloat16 [panels][ceil(k / 2)][16][2] pairs of k side by side, as vdpbf16ps reads
// Rows beyond n and, for odd k in bf16, the column beyond k are zero.
// A PackedMatrix is a view of memory that someone else owns (Arena): copy it freely.
#ifndef HANLIN_KERNELS_GEMM_CPU_PACKED_MATRIX_H_
#define HANLIN_KERNELS_GEMM_CPU_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/base/arena.h"
#include "kernels/base/types.h"

namespace hanlin {

inline constexpr int64_t kPanelRows = 16;

struct PackedMatrix {
  ComputeType type = ComputeType::kFloat32;
  int64_t n = 0;  // rows of W: outputs of the linear layer
  int64_t k = 0;  // columns of W: inputs
  std::byte* data = nullptr;

  // Bytes of an [n, k] matrix; pass Arena::RoundUp of it when summing.
  static size_t Bytes(ComputeType type, int64_t n, int64_t k);
  // Takes the memory, zeroed, from `arena`.
  static absl::StatusOr<PackedMatrix> Create(ComputeType type, int64_t n, int64_t k, Arena& arena);

  int64_t panels() const { return (n + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const { return Bytes(type, kPanelRows, k); }
  const std::byte* panel(int64_t index) const { return data + index * panel_bytes(); }

  // Stores the part rows [row_begin, row_begin + rows) x columns [col_begin, col_begin + cols);
  // element (r, c) of the part is src[r * row_stride + c * col_stride]. row_stride = cols,
  // col_stride = 1 is a plain row-major W; row_stride = 1, col_stride = n packs the [k, n] matrices
  // of GPT-2's Conv1D without a transposed copy. Rounds to the matrix's type. Several threads may
  // pack disjoint parts.
  void Pack(int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols, const float* src,
            int64_t row_stride, int64_t col_stride) const;
  void Pack(int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols, const BFloat16* src,
            int64_t row_stride, int64_t col_stride) const;

  // Whole rows: src is [rows, k].
  template <typename T>
  void PackRows(int64_t row_begin, int64_t rows, const T* src) const {
    Pack(row_begin, rows, 0, k, src, k, 1);
  }

  // out[k] = row `row` of W.
  void UnpackRow(int64_t row, float* out) const;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_PACKED_MATRIX_H_
