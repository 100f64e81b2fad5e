// See pickle.h. A stack machine over the opcodes of Python's pickletools; the few globals that
// torch needs are data of this file (kGlobals), and REDUCE is a switch over them.
#include "model/checkpoint/pickle.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "absl/strings/escaping.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

using Kind = PickleValue::Kind;

// A model of 96 layers needs about 15,000 opcodes and values.
constexpr size_t kMaxValues = 1 << 20;
constexpr size_t kMaxOpcodes = 1 << 23;
constexpr size_t kMaxStack = 1 << 20;
constexpr size_t kMaxGlobalName = 256;
constexpr size_t kMaxDimensions = 8;

enum class Action { kOrderedDict, kRebuildTensor, kRebuildParameter, kSize, kStorage };

struct Global {
  std::string_view module, name;
  Action action;
  DType dtype = DType::kFloat32;  // kStorage
};

// All that a checkpoint may name.
constexpr std::array<Global, 15> kGlobals = {{
    {"collections", "OrderedDict", Action::kOrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", Action::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor", Action::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", Action::kRebuildParameter},
    {"torch", "Size", Action::kSize},
    {"torch", "FloatStorage", Action::kStorage, DType::kFloat32},
    {"torch", "HalfStorage", Action::kStorage, DType::kFloat16},
    {"torch", "BFloat16Storage", Action::kStorage, DType::kBFloat16},
    {"torch", "DoubleStorage", Action::kStorage, DType::kFloat64},
    {"torch", "LongStorage", Action::kStorage, DType::kInt64},
    {"torch", "IntStorage", Action::kStorage, DType::kInt32},
    {"torch", "ShortStorage", Action::kStorage, DType::kInt16},
    {"torch", "CharStorage", Action::kStorage, DType::kInt8},
    {"torch", "ByteStorage", Action::kStorage, DType::kUint8},
    {"torch", "BoolStorage", Action::kStorage, DType::kBool},
}};

// A qualified name for a message, control characters escaped.
std::string Shown(std::string_view module, std::string_view name) {
  return absl::CHexEscape(
      fmt::format("{}.{}", module.substr(0, kMaxGlobalName), name.substr(0, kMaxGlobalName)));
}

class Unpickler {
 public:
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

absl::StatusOr<PickleDocument> Unpickler::Run() {
  for (size_t count = 0; count < kMaxOpcodes; ++count) {
    const size_t at = position_;
    ASSIGN_OR_RETURN(const uint64_t number, Number(1));
    const auto opcode = static_cast<uint8_t>(number);
    if (opcode == '.') {
      ASSIGN_OR_RETURN(document_.root, Pop());
      document_.bytes = position_;
      return std::move(document_);
    }
    bool done = false;
    for (const auto family : {&Unpickler::Literal, &Unpickler::Text, &Unpickler::Container,
                              &Unpickler::Memo, &Unpickler::Object}) {
      auto result = (this->*family)(opcode);
      if (!result.ok()) return Annotate(result.status(), fmt::format("pickle, byte {}", at));
      if ((done = *result)) break;
    }
    if (!done)
      return FailedPrecondition("pickle, byte {}: opcode {:#04x} is not used by torch.save", at,
                                opcode);
  }
  return ResourceExhausted("pickle has more than {} opcodes", kMaxOpcodes);
}

absl::StatusOr<bool> Unpickler::Literal(uint8_t opcode) {
  switch (opcode) {
    case 0x80:  // PROTO
    case 0x95:  // FRAME: a length, of no use here
      RETURN_IF_ERROR(Number(opcode == 0x80 ? 1 : 8).status());
      return true;
    case 'N':
      RETURN_IF_ERROR(Push(Kind::kNone));
      return true;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      RETURN_IF_ERROR(Push(Kind::kBool, opcode == 0x88));
      return true;
    case 'J': {  // BININT, signed
      ASSIGN_OR_RETURN(const uint64_t value, Number(4));
      RETURN_IF_ERROR(PushInt(static_cast<int32_t>(value)));
      return true;
    }
    case 'K':    // BININT1
    case 'M': {  // BININT2
      ASSIGN_OR_RETURN(const uint64_t value, Number(opcode == 'K' ? 1 : 2));
      RETURN_IF_ERROR(PushInt(static_cast<int64_t>(value)));
      return true;
    }
    case 0x8a:    // LONG1
    case 0x8b: {  // LONG4
      ASSIGN_OR_RETURN(const uint64_t size, Number(opcode == 0x8a ? 1 : 4));
      RETURN_IF_ERROR(PushLong(size));
      return true;
    }
    case 'G': {  // BINFLOAT, big-endian
      ASSIGN_OR_RETURN(const uint64_t bits, Number(8));
      ASSIGN_OR_RETURN(PickleValue* const value, New(Kind::kFloat));
      value->number = std::bit_cast<double>(__builtin_bswap64(bits));
      RETURN_IF_ERROR(Push(value));
      return true;
    }
    default:
      return false;
  }
}

// Little-endian two's complement of any length; what exceeds int64 is kept as bytes.
absl::Status Unpickler::PushLong(uint64_t size) {
  ASSIGN_OR_RETURN(const std::string_view digits, Bytes(size));
  ASSIGN_OR_RETURN(PickleValue* const value, New(Kind::kInt));
  if (digits.size() > 8) {
    value->text = digits;
  } else if (!digits.empty()) {
    uint64_t bits = static_cast<int8_t>(digits.back()) < 0 ? ~uint64_t{0} : 0;
    for (size_t i = digits.size(); i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(digits[i]);
    value->integer = static_cast<int64_t>(bits);
  }
  return Push(value);
}

absl::StatusOr<bool> Unpickler::Text(uint8_t opcode) {
  switch (opcode) {
    case 0x8c:  // SHORT_BINUNICODE
    case 'U':   // SHORT_BINSTRING, from Python 2
      RETURN_IF_ERROR(PushText(Kind::kString, 1));
      return true;
    case 'X':  // BINUNICODE
    case 'T':  // BINSTRING
      RETURN_IF_ERROR(PushText(Kind::kString, 4));
      return true;
    case 0x8d:  // BINUNICODE8
      RETURN_IF_ERROR(PushText(Kind::kString, 8));
      return true;
    case 'C':  // SHORT_BINBYTES
      RETURN_IF_ERROR(PushText(Kind::kBytes, 1));
      return true;
    case 'B':  // BINBYTES
      RETURN_IF_ERROR(PushText(Kind::kBytes, 4));
      return true;
    case 0x8e:  // BINBYTES8
      RETURN_IF_ERROR(PushText(Kind::kBytes, 8));
      return true;
    default:
      return false;
  }
}

absl::Status Unpickler::PushText(Kind kind, int length_bytes) {
  ASSIGN_OR_RETURN(const uint64_t size, Number(length_bytes));
  ASSIGN_OR_RETURN(const std::string_view text, Bytes(size));
  ASSIGN_OR_RETURN(PickleValue* const value, New(kind));
  value->text = text;
  return Push(value);
}

absl::StatusOr<bool> Unpickler::Container(uint8_t opcode) {
  switch (opcode) {
    case '(':  // MARK
      if (marks_.size() >= kMaxStack) return ResourceExhausted("more than {} marks", kMaxStack);
      marks_.push_back(stack_.size());
      return true;
    case '0':  // POP
      RETURN_IF_ERROR(Pop().status());
      return true;
    case '1':  // POP_MARK
      RETURN_IF_ERROR(PopMark().status());
      return true;
    case ')':   // EMPTY_TUPLE
    case 0x85:  // TUPLE1, TUPLE2, TUPLE3
    case 0x86:
    case 0x87:
      RETURN_IF_ERROR(PushTuple(PopItems(opcode == ')' ? 0 : opcode - 0x84)));
      return true;
    case 't':  // TUPLE
      RETURN_IF_ERROR(PushTuple(PopMark()));
      return true;
    case ']':  // EMPTY_LIST
    case '}':  // EMPTY_DICT
      RETURN_IF_ERROR(Push(opcode == ']' ? Kind::kList : Kind::kDict));
      return true;
    case 'a':    // APPEND
    case 's': {  // SETITEM
      ASSIGN_OR_RETURN(auto items, PopItems(opcode == 'a' ? 1 : 2));
      RETURN_IF_ERROR(Extend(opcode == 'a' ? Kind::kList : Kind::kDict, std::move(items)));
      return true;
    }
    case 'e':    // APPENDS
    case 'u': {  // SETITEMS
      ASSIGN_OR_RETURN(auto items, PopMark());
      RETURN_IF_ERROR(Extend(opcode == 'e' ? Kind::kList : Kind::kDict, std::move(items)));
      return true;
    }
    default:
      return false;
  }
}

absl::Status Unpickler::Extend(Kind kind, std::vector<PickleValue*> items) {
  if (stack_.empty() || stack_.back()->kind != kind)
    return DataLoss("items are added to no {}", ToString(kind));
  if (kind == Kind::kDict && items.size() % 2 != 0)
    return DataLoss("a dict gets a key without a value");
  auto& target = stack_.back()->items;
  target.insert(target.end(), items.begin(), items.end());
  return absl::OkStatus();
}

absl::StatusOr<bool> Unpickler::Memo(uint8_t opcode) {
  switch (opcode) {
    case 'q':     // BINPUT
    case 'r':     // LONG_BINPUT
    case 0x94: {  // MEMOIZE
      uint64_t index = memo_.size();
      if (opcode != 0x94) {
        ASSIGN_OR_RETURN(index, Number(opcode == 'q' ? 1 : 4));
      }
      if (stack_.empty()) return DataLoss("it remembers a value of an empty stack");
      if (memo_.size() >= kMaxValues)
        return ResourceExhausted("more than {} remembered values", kMaxValues);
      memo_[index] = stack_.back();
      return true;
    }
    case 'h':    // BINGET
    case 'j': {  // LONG_BINGET
      ASSIGN_OR_RETURN(const uint64_t index, Number(opcode == 'h' ? 1 : 4));
      const auto it = memo_.find(index);
      if (it == memo_.end()) return DataLoss("it recalls value {}, which was never stored", index);
      RETURN_IF_ERROR(Push(it->second));
      return true;
    }
    default:
      return false;
  }
}

absl::StatusOr<bool> Unpickler::Object(uint8_t opcode) {
  switch (opcode) {
    case 'c':    // GLOBAL
    case 'i': {  // INST: names a class as GLOBAL does
      ASSIGN_OR_RETURN(const std::string_view module, Line());
      ASSIGN_OR_RETURN(const std::string_view name, Line());
      if (opcode == 'i')
        return FailedPrecondition("it makes an instance of {}", Shown(module, name));
      RETURN_IF_ERROR(PushGlobal(module, name));
      return true;
    }
    case 0x93: {  // STACK_GLOBAL
      ASSIGN_OR_RETURN(const auto names, PopItems(2));
      if (names[0]->kind != Kind::kString || names[1]->kind != Kind::kString)
        return DataLoss("a global has no name");
      RETURN_IF_ERROR(PushGlobal(names[0]->text, names[1]->text));
      return true;
    }
    case 'Q':  // BINPERSID
      RETURN_IF_ERROR(PushStorage());
      return true;
    case 'R':
      RETURN_IF_ERROR(Reduce());
      return true;
    case 'b':
      RETURN_IF_ERROR(Build());
      return true;
    default:
      return false;
  }
}

absl::Status Unpickler::PushGlobal(std::string_view module, std::string_view name) {
  for (size_t i = 0; i < kGlobals.size(); ++i) {
    if (kGlobals[i].module == module && kGlobals[i].name == name) {
      return Push(Kind::kGlobal, static_cast<int64_t>(i));
    }
  }
  return FailedPrecondition("it asks for {}, want nothing but tensors and plain values",
                            Shown(module, name));
}

// ('storage', torch.FloatStorage, key, location, elements[, view])
absl::Status Unpickler::PushStorage() {
  ASSIGN_OR_RETURN(const PickleValue* const id, Pop());
  const auto& items = id->items;
  const bool well_formed = id->kind == Kind::kTuple && (items.size() == 5 || items.size() == 6) &&
                           items[0]->kind == Kind::kString && items[0]->text == "storage" &&
                           items[1]->kind == Kind::kGlobal && items[2]->kind == Kind::kString &&
                           items[4]->kind == Kind::kInt && items[4]->text.empty() &&
                           items[4]->integer >= 0;
  if (!well_formed) return DataLoss("a persistent id is not a storage as torch.save writes it");
  if (items.size() == 6 && items[5]->kind != Kind::kNone) {
    return FailedPrecondition(
        "storage {} is a view of another storage, which torch has not written since 0.4",
        absl::CHexEscape(std::string(items[2]->text)));
  }
  const Global& type = kGlobals[static_cast<size_t>(items[1]->integer)];
  if (type.action != Action::kStorage)
    return DataLoss("a storage is of type {}.{}", type.module, type.name);
  const PickledStorage storage = {type.dtype, items[4]->integer};
  const auto [it, inserted] = document_.storages.emplace(items[2]->text, storage);
  if (!inserted && (it->second.dtype != storage.dtype || it->second.elements != storage.elements)) {
    return DataLoss("storage {} is described in two ways",
                    absl::CHexEscape(std::string(items[2]->text)));
  }
  ASSIGN_OR_RETURN(PickleValue* const value, New(Kind::kStorage));
  value->text = items[2]->text;
  return Push(value);
}

absl::Status Unpickler::Reduce() {
  ASSIGN_OR_RETURN(PickleValue* const arguments, Pop());
  ASSIGN_OR_RETURN(const PickleValue* const function, Pop());
  if (function->kind != Kind::kGlobal || arguments->kind != Kind::kTuple) {
    return DataLoss("it calls a {} with a {}", ToString(function->kind), ToString(arguments->kind));
  }
  const Global& global = kGlobals[static_cast<size_t>(function->integer)];
  switch (global.action) {
    case Action::kOrderedDict:
      return OrderedDict(*arguments);
    case Action::kRebuildTensor:
      return RebuildTensor(*arguments);
    case Action::kRebuildParameter:  // (tensor, requires_grad, hooks)
      if (arguments->items.empty() || arguments->items[0]->kind != Kind::kTensor) break;
      return Push(arguments->items[0]);
    case Action::kSize:  // (tuple,)
      if (arguments->items.size() != 1 || arguments->items[0]->kind != Kind::kTuple) break;
      return Push(arguments->items[0]);
    case Action::kStorage:
      return FailedPrecondition("it calls {}.{}", global.module, global.name);
  }
  return DataLoss("it calls {}.{} with arguments of other types than torch does", global.module,
                  global.name);
}

// OrderedDict() or, from Python 2, OrderedDict([[key, value], …]).
absl::Status Unpickler::OrderedDict(const PickleValue& arguments) {
  ASSIGN_OR_RETURN(PickleValue* const dict, New(Kind::kDict));
  if (arguments.items.size() > 1)
    return DataLoss("an OrderedDict gets {} arguments", arguments.items.size());
  if (arguments.items.size() == 1) {
    for (PickleValue* const pair : arguments.items[0]->items) {
      if (pair->items.size() != 2)
        return DataLoss("an OrderedDict is made of something else than pairs");
      // The one place that copies references without consuming them: a list may be recalled again
      // and again.
      if (++copied_pairs_ > kMaxValues)
        return ResourceExhausted("OrderedDicts of more than {} pairs", kMaxValues);
      dict->items.insert(dict->items.end(), pair->items.begin(), pair->items.end());
    }
  }
  return Push(dict);
}

// A tuple of up to 8 integers.
std::optional<std::vector<int64_t>> Sizes(const PickleValue& value) {
  if (value.kind != Kind::kTuple || value.items.size() > kMaxDimensions) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const PickleValue* item : value.items) {
    if (item->kind != Kind::kInt || !item->text.empty()) return std::nullopt;
    sizes.push_back(item->integer);
  }
  return sizes;
}

// (storage, offset, size, stride, requires_grad, hooks[, metadata])
absl::Status Unpickler::RebuildTensor(const PickleValue& arguments) {
  const auto& items = arguments.items;
  if (items.size() < 4 || items.size() > 7 || items[0]->kind != Kind::kStorage ||
      items[1]->kind != Kind::kInt) {
    return DataLoss("a tensor is not described as torch.save does");
  }
  const auto shape = Sizes(*items[2]);
  const auto strides = Sizes(*items[3]);
  if (!shape || !strides)
    return DataLoss("a tensor has no shape or strides of up to {} integers", kMaxDimensions);
  const PickledStorage& storage = document_.storages.at(items[0]->text);
  RETURN_IF_ERROR(CheckExtent(*shape, *strides, items[1]->integer, storage.elements));
  ASSIGN_OR_RETURN(PickleValue* const value, New(Kind::kTensor));
  value->tensor = std::make_unique<PickledTensor>(
      PickledTensor{items[0]->text, storage.dtype, items[1]->integer, *shape, *strides});
  return Push(value);
}

// obj.__dict__.update(state): happens to OrderedDicts (`_metadata` of state_dict()), whose
// attributes mean nothing here.
absl::Status Unpickler::Build() {
  ASSIGN_OR_RETURN(const PickleValue* const state, Pop());
  if (stack_.empty() || stack_.back()->kind != Kind::kDict || state->kind != Kind::kDict) {
    return FailedPrecondition("it sets the state of a {}",
                              stack_.empty() ? "nothing" : ToString(stack_.back()->kind));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Unpickler::Number(int size) {
  ASSIGN_OR_RETURN(const std::string_view digits, Bytes(static_cast<uint64_t>(size)));
  uint64_t value = 0;
  for (size_t i = digits.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(digits[i]);
  return value;
}

absl::StatusOr<std::string_view> Unpickler::Bytes(uint64_t size) {
  if (size > bytes_.size() - position_) {
    return DataLoss("pickle ends at byte {}, want {} more behind {}", bytes_.size(), size,
                    position_);
  }
  const std::string_view result = bytes_.substr(position_, size);
  position_ += size;
  return result;
}

absl::StatusOr<std::string_view> Unpickler::Line() {
  const std::string_view rest = bytes_.substr(position_, kMaxGlobalName + 1);
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos)
    return DataLoss("a global has a name of more than {} bytes", kMaxGlobalName);
  position_ += end + 1;
  return rest.substr(0, end);
}

absl::StatusOr<PickleValue*> Unpickler::New(Kind kind) {
  if (document_.values.size() >= kMaxValues)
    return ResourceExhausted("more than {} values", kMaxValues);
  document_.values.emplace_back().kind = kind;
  return &document_.values.back();
}

absl::Status Unpickler::Push(Kind kind, int64_t integer) {
  ASSIGN_OR_RETURN(PickleValue* const value, New(kind));
  value->integer = integer;
  return Push(value);
}

absl::Status Unpickler::Push(PickleValue* value) {
  if (stack_.size() >= kMaxStack)
    return ResourceExhausted("more than {} values on the stack", kMaxStack);
  stack_.push_back(value);
  return absl::OkStatus();
}

absl::StatusOr<PickleValue*> Unpickler::Pop() {
  ASSIGN_OR_RETURN(const auto items, PopItems(1));
  return items[0];
}

absl::StatusOr<std::vector<PickleValue*>> Unpickler::PopItems(size_t count) {
  const size_t floor = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() - floor < count) return DataLoss("it takes a value from an empty stack");
  std::vector<PickleValue*> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  return items;
}

absl::StatusOr<std::vector<PickleValue*>> Unpickler::PopMark() {
  if (marks_.empty()) return DataLoss("it closes a group that was never opened");
  const size_t count = stack_.size() - marks_.back();
  ASSIGN_OR_RETURN(auto items, PopItems(count));
  marks_.pop_back();
  return items;
}

absl::Status Unpickler::PushTuple(absl::StatusOr<std::vector<PickleValue*>> items) {
  RETURN_IF_ERROR(items.status());
  ASSIGN_OR_RETURN(PickleValue* const tuple, New(Kind::kTuple));
  tuple->items = *std::move(items);
  return Push(tuple);
}

}  // namespace

std::string_view ToString(Kind kind) {
  static constexpr std::string_view kNames[] = {"None",   "bool",   "int",     "float",
                                                "string", "bytes",  "list",    "tuple",
                                                "dict",   "global", "storage", "tensor"};
  return kNames[static_cast<size_t>(kind)];
}

const PickleValue* PickleValue::Find(std::string_view key) const {
  if (kind != Kind::kDict) return nullptr;
  for (size_t i = items.size(); i >= 2; i -= 2) {
    const PickleValue& name = *items[i - 2];
    if (name.kind == Kind::kString && name.text == key) return items[i - 1];
  }
  return nullptr;
}

absl::StatusOr<PickleDocument> ReadPickle(std::string_view bytes) { return Unpickler(bytes).Run(); }

}  // namespace hanlin
