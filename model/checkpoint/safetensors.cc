// See safetensors.h.
#include "model/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/config/json.h"

namespace hanlin {
namespace {

// A model of 96 layers needs 150 kB.
constexpr uint64_t kMaxHeaderBytes = uint64_t{8} << 20;
constexpr size_t kMaxDimensions = 8;

std::optional<DType> ParseDType(const std::string& name) {
  static const std::map<std::string, DType> kNames = {
      {"F32", DType::kFloat32}, {"F16", DType::kFloat16}, {"BF16", DType::kBFloat16},
      {"F64", DType::kFloat64}, {"I64", DType::kInt64},   {"I32", DType::kInt32},
      {"I16", DType::kInt16},   {"I8", DType::kInt8},     {"U8", DType::kUint8},
      {"BOOL", DType::kBool}};
  const auto it = kNames.find(name);
  if (it == kNames.end()) return std::nullopt;
  return it->second;
}

// A list of integers >= 0.
std::optional<std::vector<int64_t>> ParseSizes(const nlohmann::json& entry, const char* key) {
  const auto it = entry.find(key);
  if (it == entry.end() || !it->is_array() || it->size() > kMaxDimensions) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const nlohmann::json& value : *it) {
    if (!value.is_number_integer()) return std::nullopt;
    // A number beyond int64 reads as negative here.
    const auto number = value.get<int64_t>();
    if (number < 0) return std::nullopt;
    sizes.push_back(number);
  }
  return sizes;
}

struct Range {
  int64_t begin, end;
  const std::string* name;
};

// Checks one header entry against `data_bytes`; fills the tensor's type, shape and range.
absl::Status ParseEntry(const nlohmann::json& entry, int64_t data_bytes, StoredTensor* tensor,
                        Range* range) {
  if (!entry.is_object())
    return DataLoss("its header entry is a JSON {}, want an object", entry.type_name());
  const auto dtype_name = entry.find("dtype");
  if (dtype_name == entry.end() || !dtype_name->is_string()) return DataLoss("it has no dtype");
  const auto dtype = ParseDType(dtype_name->get<std::string>());
  if (!dtype)
    return DataLoss("its dtype is {}, want F32, F16 or BF16",
                    Printable(dtype_name->get<std::string>()));
  const auto shape = ParseSizes(entry, "shape");
  if (!shape) return DataLoss("its shape is no list of up to {} sizes", kMaxDimensions);
  const auto offsets = ParseSizes(entry, "data_offsets");
  if (!offsets || offsets->size() != 2) return DataLoss("its data_offsets are no pair of integers");
  const int64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (begin > end || end > data_bytes) {
    return DataLoss("its data_offsets are [{}, {}], want a range within the {} bytes of data",
                    begin, end, data_bytes);
  }
  int64_t bytes = ElementBytes(*dtype);
  for (const int64_t size : *shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes))
      return DataLoss("its shape {} overflows", ShapeString(*shape));
  }
  if (bytes != end - begin) {
    return DataLoss("its data_offsets [{}, {}] span {} bytes, want {} for shape {} of {}", begin,
                    end, end - begin, bytes, ShapeString(*shape), ToString(*dtype));
  }
  tensor->dtype = *dtype;
  tensor->shape = *shape;
  tensor->strides = ContiguousStrides(*shape);
  range->begin = begin;
  range->end = end;
  return absl::OkStatus();
}

absl::Status CheckNoOverlap(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      return DataLoss("tensors {} and {} overlap", Printable(*ranges[i - 1].name),
                      Printable(*ranges[i].name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredTensors> Parse(const std::shared_ptr<const MappedFile>& file) {
  if (file->size() < 8)
    return DataLoss("it has {} bytes, want at least the 8 of a header length", file->size());
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | file->data()[i];
  if (header_bytes > kMaxHeaderBytes || header_bytes > file->size() - 8) {
    return DataLoss("its header length is {}, want at most {}", header_bytes,
                    std::min<uint64_t>(kMaxHeaderBytes, file->size() - 8));
  }
  auto header =
      ParseJsonObject(file->view().substr(8, header_bytes), "its header", /*max_depth=*/8);
  if (!header.ok()) return absl::DataLossError(header.status().message());
  const uint8_t* data = file->data() + 8 + header_bytes;
  const auto data_bytes = static_cast<int64_t>(file->size() - 8 - header_bytes);
  StoredTensors tensors;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    StoredTensor tensor;
    Range range = {};
    if (absl::Status status = ParseEntry(entry, data_bytes, &tensor, &range); !status.ok()) {
      return Annotate(status, "tensor " + Printable(name));
    }
    tensor.file = file;
    tensor.data = data + range.begin;
    const auto inserted = tensors.emplace(name, std::move(tensor)).first;
    range.name = &inserted->first;
    if (range.begin < range.end) ranges.push_back(range);
  }
  RETURN_IF_ERROR(CheckNoOverlap(std::move(ranges)));
  return tensors;
}

}  // namespace

absl::StatusOr<StoredTensors> ReadSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  auto tensors = Parse(file);
  if (!tensors.ok()) return Annotate(tensors.status(), path);
  return tensors;
}

}  // namespace hanlin
