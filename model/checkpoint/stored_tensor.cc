// See stored_tensor.h.
#include "model/checkpoint/stored_tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/escaping.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

struct DTypeInfo {
  std::string_view name;
  int64_t bytes;
};

constexpr DTypeInfo Info(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return {"float32", 4};
    case DType::kFloat16:
      return {"float16", 2};
    case DType::kBFloat16:
      return {"bfloat16", 2};
    case DType::kFloat64:
      return {"float64", 8};
    case DType::kInt64:
      return {"int64", 8};
    case DType::kInt32:
      return {"int32", 4};
    case DType::kInt16:
      return {"int16", 2};
    case DType::kInt8:
      return {"int8", 1};
    case DType::kUint8:
      return {"uint8", 1};
    case DType::kBool:
      return {"bool", 1};
  }
  return {"unknown", 1};
}

// Bits of one stored element → float. Written without branches so that loops over them become
// vector code.
struct LoadFloat32 {
  using Bits = uint32_t;
  static float Widen(uint32_t bits) { return std::bit_cast<float>(bits); }
};
struct LoadBFloat16 {
  using Bits = uint16_t;
  static float Widen(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
};
struct LoadFloat16 {
  using Bits = uint16_t;
  static float Widen(uint16_t bits) {
    const uint32_t magnitude = bits & 0x7fffu;
    const uint32_t sign = (uint32_t{bits} & 0x8000u) << 16;
    // Rebias the exponent from 15 to 127; infinity and NaN keep the largest exponent.
    uint32_t normal = (magnitude << 13) + (112u << 23);
    normal = magnitude >= 0x7c00u ? normal + (112u << 23) : normal;
    // Subnormals are integers times 2^-24, which float32 holds as normal numbers.
    const float tiny = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
    const uint32_t result = magnitude < 0x0400u ? std::bit_cast<uint32_t>(tiny) : normal;
    return std::bit_cast<float>(result | sign);
  }
};

template <typename Load>
float LoadAt(const uint8_t* data, int64_t index) {
  typename Load::Bits bits;  // the file promises no alignment
  std::memcpy(&bits, data + index * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
  return Load::Widen(bits);
}

template <typename Load>
void CopyAs(const StoredMatrix& from, int64_t row, int64_t col, int64_t rows, int64_t cols,
            float* dst, int64_t dst_stride) {
  const auto at = [&](int64_t i, int64_t j) {
    return (row + i) * from.row_stride + (col + j) * from.col_stride;
  };
  if (from.col_stride == 1) {
    for (int64_t i = 0; i < rows; ++i) {
      const uint8_t* source =
          from.data + at(i, 0) * static_cast<int64_t>(sizeof(typename Load::Bits));
      float* target = dst + i * dst_stride;
      for (int64_t j = 0; j < cols; ++j) target[j] = LoadAt<Load>(source, j);
    }
    return;
  }
  // A transposed source is contiguous along the rows of the result. A tile goes through a buffer,
  // so that both sides are touched in whole cache lines (rows of the result are often a multiple of
  // 4 KiB apart).
  constexpr int64_t kTileRows = 32, kTileCols = 16;
  float tile[kTileCols][kTileRows];
  for (int64_t i0 = 0; i0 < rows; i0 += kTileRows) {
    const int64_t tile_rows = std::min(kTileRows, rows - i0);
    for (int64_t j0 = 0; j0 < cols; j0 += kTileCols) {
      const int64_t tile_cols = std::min(kTileCols, cols - j0);
      for (int64_t j = 0; j < tile_cols; ++j) {
        const int64_t first = at(i0, j0 + j);
        for (int64_t i = 0; i < tile_rows; ++i) {
          tile[j][i] = LoadAt<Load>(from.data, first + i * from.row_stride);
        }
      }
      for (int64_t i = 0; i < tile_rows; ++i) {
        float* target = dst + (i0 + i) * dst_stride + j0;
        for (int64_t j = 0; j < tile_cols; ++j) target[j] = tile[j][i];
      }
    }
  }
}

}  // namespace

std::string_view ToString(DType dtype) { return Info(dtype).name; }

int64_t ElementBytes(DType dtype) { return Info(dtype).bytes; }

std::string Printable(std::string_view text) {
  return absl::CHexEscape(std::string(text.substr(0, 200)));
}

std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    // Wraps for shapes that no file can hold; CheckExtent refuses those before a stride is used.
    stride = static_cast<int64_t>(static_cast<uint64_t>(stride) * static_cast<uint64_t>(shape[i]));
  }
  return strides;
}

std::string ShapeString(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

absl::Status CheckExtent(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                         int64_t offset, int64_t storage_elements) {
  const auto outside = [&] {
    return DataLoss("shape {} with strides {} at offset {} does not fit a storage of {} elements",
                    ShapeString(shape), ShapeString(strides), offset, storage_elements);
  };
  if (shape.size() != strides.size() || offset < 0) return outside();
  bool empty = false;
  int64_t last = offset;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || strides[i] < 0) return outside();
    empty = empty || shape[i] == 0;
    int64_t reach = 0;
    if (shape[i] > 0 && __builtin_mul_overflow(shape[i] - 1, strides[i], &reach)) return outside();
    if (__builtin_add_overflow(last, reach, &last)) return outside();
  }
  if (empty) return offset <= storage_elements ? absl::OkStatus() : outside();
  // Strides may repeat elements (an expanded view), which must not let a few bytes pose as a huge
  // tensor.
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(elements, size, &elements)) return outside();
  }
  if (last >= storage_elements || elements > storage_elements) return outside();
  return absl::OkStatus();
}

void CopyRectangle(const StoredMatrix& from, int64_t row, int64_t col, int64_t rows, int64_t cols,
                   float* dst, int64_t dst_stride) {
  switch (from.dtype) {
    case DType::kFloat32:
      return CopyAs<LoadFloat32>(from, row, col, rows, cols, dst, dst_stride);
    case DType::kFloat16:
      return CopyAs<LoadFloat16>(from, row, col, rows, cols, dst, dst_stride);
    case DType::kBFloat16:
      return CopyAs<LoadBFloat16>(from, row, col, rows, cols, dst, dst_stride);
    default:
      return;  // the opener accepts no other type
  }
}

}  // namespace hanlin
