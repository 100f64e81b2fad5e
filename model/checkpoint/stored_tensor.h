// A tensor as it lies in a mapped checkpoint file: type, shape, strides and where its bytes are,
// already checked to be inside the file; and the exact widening of a rectangle of it to float32.
// Immutable, thus thread-safe.
#ifndef HANLIN_MODEL_CHECKPOINT_STORED_TENSOR_H_
#define HANLIN_MODEL_CHECKPOINT_STORED_TENSOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/io/file.h"

namespace hanlin {

// Types that checkpoint files use. Weights are one of the first three; the others occur in buffers
// that are skipped.
enum class DType {
  kFloat32,
  kFloat16,
  kBFloat16,
  kFloat64,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUint8,
  kBool
};

// "float32", "bfloat16", …
std::string_view ToString(DType dtype);
int64_t ElementBytes(DType dtype);

struct StoredTensor {
  std::shared_ptr<const MappedFile> file;  // keeps `data` alive
  const uint8_t* data = nullptr;           // element [0, …, 0]; any alignment
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;    // each >= 0
  std::vector<int64_t> strides;  // in elements, each >= 0
};

// A name out of a file for a message: at most 200 bytes, control and non-ASCII bytes escaped.
std::string Printable(std::string_view text);

// All tensors of one or several files by name.
using StoredTensors = std::map<std::string, StoredTensor>;

// Row-major strides of a shape.
std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& shape);

// "[160, 64]"
std::string ShapeString(const std::vector<int64_t>& shape);

// Whether the elements of `shape` at `strides` from `offset` lie within a storage of
// `storage_elements`. Safe against overflow. DATA_LOSS says what lies outside.
absl::Status CheckExtent(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                         int64_t offset, int64_t storage_elements);

// A matrix inside a stored tensor; strides in elements.
struct StoredMatrix {
  const uint8_t* data;
  DType dtype;  // float32, float16 or bfloat16
  int64_t row_stride;
  int64_t col_stride;
};

// Element [i, j] of [rows, cols] at (row + i, col + j) of `from`, widened, to dst[i * dst_stride +
// j].
void CopyRectangle(const StoredMatrix& from, int64_t row, int64_t col, int64_t rows, int64_t cols,
                   float* dst, int64_t dst_stride);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_STORED_TENSOR_H_
