// The address of an element in the packed layout, and the loops that fill and read it.
#include "kernels/gemm/cpu/packed_matrix.h"

#include <algorithm>

#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr int64_t kMaxExtent = int64_t{1}
                               << 31;  // products of two extents and a type's size fit in 64 bits

// Element (row, col) of a matrix of T: the layout of the header in one place.
template <typename T>
int64_t Index(int64_t k, int64_t row, int64_t col);
template <>
int64_t Index<float>(int64_t k, int64_t row, int64_t col) {
  return ((row / kPanelRows) * k + col) * kPanelRows + row % kPanelRows;
}
template <>
int64_t Index<BFloat16>(int64_t k, int64_t row, int64_t col) {
  const int64_t pairs = (k + 1) / 2;
  return (((row / kPanelRows) * pairs + col / 2) * kPanelRows + row % kPanelRows) * 2 + col % 2;
}

void Assign(float& to, float from) { to = from; }
void Assign(float& to, BFloat16 from) { to = ToFloat(from); }
void Assign(BFloat16& to, float from) { to = ToBFloat16(from); }
void Assign(BFloat16& to, BFloat16 from) { to = from; }

struct Part {
  int64_t row_begin, rows, col_begin, cols, row_stride, col_stride;
};

// Walks the packed matrix in its own order: panel by panel, in a panel column by column, so that
// writes are sequential whichever way the source runs.
template <typename To, typename From>
void PackPart(To* data, int64_t k, const Part& part, const From* src) {
  const int64_t row_end = part.row_begin + part.rows;
  for (int64_t row = part.row_begin; row < row_end;) {
    const int64_t panel_end = std::min((row / kPanelRows + 1) * kPanelRows, row_end);
    for (int64_t c = 0; c < part.cols; ++c) {
      To* to = data + Index<To>(k, row, part.col_begin + c);
      const From* from = src + (row - part.row_begin) * part.row_stride + c * part.col_stride;
      constexpr int64_t kLaneStride = sizeof(To) == 4 ? 1 : 2;
      for (int64_t r = 0; r < panel_end - row; ++r)
        Assign(to[r * kLaneStride], from[r * part.row_stride]);
    }
    row = panel_end;
  }
}

template <typename From>
void PackAny(const PackedMatrix& matrix, const Part& part, const From* src) {
  if (matrix.type == ComputeType::kFloat32) {
    PackPart(reinterpret_cast<float*>(matrix.data), matrix.k, part, src);
  } else {
    PackPart(reinterpret_cast<BFloat16*>(matrix.data), matrix.k, part, src);
  }
}

}  // namespace

size_t PackedMatrix::Bytes(ComputeType type, int64_t n, int64_t k) {
  const int64_t panels = (n + kPanelRows - 1) / kPanelRows;
  const int64_t columns = type == ComputeType::kFloat32 ? k : (k + 1) / 2 * 2;
  return static_cast<size_t>(panels * kPanelRows * columns) * SizeOf(type);
}

absl::StatusOr<PackedMatrix> PackedMatrix::Create(ComputeType type, int64_t n, int64_t k,
                                                  Arena& arena) {
  if (n < 1 || k < 1 || n > kMaxExtent || k > kMaxExtent) {
    return InvalidArgument("a matrix of {} x {}, want both in [1, {}]", n, k, kMaxExtent);
  }
  PackedMatrix matrix{type, n, k, nullptr};
  ASSIGN_OR_RETURN(matrix.data, arena.Allocate(Bytes(type, n, k)));
  return matrix;
}

void PackedMatrix::Pack(int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols,
                        const float* src, int64_t row_stride, int64_t col_stride) const {
  PackAny(*this, {row_begin, rows, col_begin, cols, row_stride, col_stride}, src);
}

void PackedMatrix::Pack(int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols,
                        const BFloat16* src, int64_t row_stride, int64_t col_stride) const {
  PackAny(*this, {row_begin, rows, col_begin, cols, row_stride, col_stride}, src);
}

void PackedMatrix::UnpackRow(int64_t row, float* out) const {
  if (type == ComputeType::kFloat32) {
    const float* from = reinterpret_cast<const float*>(data);
    for (int64_t col = 0; col < k; ++col) out[col] = from[Index<float>(k, row, col)];
  } else {
    const auto* from = reinterpret_cast<const BFloat16*>(data);
    for (int64_t col = 0; col < k; ++col) out[col] = ToFloat(from[Index<BFloat16>(k, row, col)]);
  }
}

}  // namespace hanlin
