// A restricted reader of Python pickles (protocols 2 to 4) as torch.save writes them. It builds
// None, booleans, numbers, strings, bytes, lists, tuples, dicts and descriptions of tensors, and
// nothing else: a pickle that names any other class or function is refused by that name, and
// nothing is ever called. Work and memory are bounded by the length of the pickle and by fixed
// caps; nothing recurses, so nesting costs no stack.
//
// Values live in the document and point to each other (a hostile pickle can make cycles: walk to a
// fixed depth). Strings are views into the pickle's bytes, which must outlive the document.
#ifndef HANLIN_MODEL_CHECKPOINT_PICKLE_H_
#define HANLIN_MODEL_CHECKPOINT_PICKLE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/stored_tensor.h"

namespace hanlin {

// The storage behind a tensor, by key; the bytes are elsewhere in the torch file.
struct PickledStorage {
  DType dtype = DType::kFloat32;
  int64_t elements = 0;
};

// A view into a storage, already checked to be inside it.
struct PickledTensor {
  std::string_view storage_key;
  DType dtype = DType::kFloat32;
  int64_t offset = 0;  // elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // elements
};

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kBytes,
    kList,
    kTuple,
    kDict,
    kGlobal,
    kStorage,
    kTensor
  };

  Kind kind = Kind::kNone;
  int64_t integer =
      0;  // kBool, kInt (values beyond int64 keep their low bytes in `text`); kGlobal: its index
  double number = 0;                      // kFloat
  std::string_view text;                  // kString, kBytes; kStorage: its key; big kInt
  std::vector<PickleValue*> items;        // kList, kTuple; kDict: key, value, key, value, …
  std::unique_ptr<PickledTensor> tensor;  // kTensor

  // The value of a string key of a dict (the last one written); nullptr when absent or when this is
  // no dict.
  const PickleValue* Find(std::string_view key) const;
};

// "dict", "tensor", …
std::string_view ToString(PickleValue::Kind kind);

struct PickleDocument {
  std::deque<PickleValue> values;  // owns all values; addresses are stable
  std::map<std::string_view, PickledStorage> storages;
  const PickleValue* root = nullptr;
  size_t bytes = 0;  // length of the pickle, its STOP included
};

// Reads one pickle from the beginning of `bytes`. DATA_LOSS for a damaged pickle,
// FAILED_PRECONDITION naming what it asks for that a checkpoint may not.
absl::StatusOr<PickleDocument> ReadPickle(std::string_view bytes);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_PICKLE_H_
