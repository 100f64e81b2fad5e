// The stack machine behind pickle.h; internal to it. pickle.cc has the opcodes that push values and
// build containers and the stack itself, pickle_objects.cc those that name a global and the few
// functions that torch's files call.
#ifndef HANLIN_MODEL_CHECKPOINT_UNPICKLER_H_
#define HANLIN_MODEL_CHECKPOINT_UNPICKLER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/pickle.h"

namespace hanlin {

// Caps. A model of 96 layers needs about 50,000 opcodes and values.
inline constexpr size_t kMaxValues = 1 << 20;
inline constexpr size_t kMaxOpcodes = 1 << 23;
inline constexpr size_t kMaxStack = 1 << 20;
inline constexpr size_t kMaxGlobalName = 256;
inline constexpr size_t kMaxDimensions = 8;

// Runs one pickle; used once, by one thread.
class Unpickler {
 public:
  using Kind = PickleValue::Kind;

  explicit Unpickler(std::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<PickleDocument> Run();

 private:
  // Each runs one opcode of its family; false: the opcode is of another family.
  absl::StatusOr<bool> Literal(uint8_t opcode);
  absl::StatusOr<bool> Text(uint8_t opcode);
  absl::StatusOr<bool> Container(uint8_t opcode);
  absl::StatusOr<bool> Memo(uint8_t opcode);
  absl::StatusOr<bool> Object(uint8_t opcode);

  absl::Status PushInt(int64_t value) { return Push(Kind::kInt, value); }
  absl::Status PushLong(uint64_t size);
  absl::Status PushText(Kind kind, int length_bytes);
  absl::Status PushGlobal(std::string_view module, std::string_view name);
  absl::Status PushStorage();
  absl::Status Reduce();
  absl::Status Build();
  absl::Status RebuildTensor(const PickleValue& arguments);
  absl::Status OrderedDict(const PickleValue& arguments);
  absl::Status Extend(Kind kind, std::vector<PickleValue*> items);

  // Primitives: input, values, stack.
  absl::StatusOr<uint64_t> Number(int size);
  absl::StatusOr<std::string_view> Bytes(uint64_t size);
  absl::StatusOr<std::string_view> Line();
  absl::StatusOr<PickleValue*> New(Kind kind);
  absl::Status Push(Kind kind, int64_t integer = 0);
  absl::Status Push(PickleValue* value);
  absl::StatusOr<PickleValue*> Pop();
  absl::StatusOr<std::vector<PickleValue*>> PopItems(size_t count);
  absl::StatusOr<std::vector<PickleValue*>> PopMark();
  absl::Status PushTuple(absl::StatusOr<std::vector<PickleValue*>> items);

  std::string_view bytes_;
  size_t position_ = 0;
  PickleDocument document_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;  // stack heights
  std::unordered_map<uint64_t, PickleValue*> memo_;
  size_t copied_pairs_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_UNPICKLER_H_
