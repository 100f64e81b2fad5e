// See pickle.h and unpickler.h: the loop over opcodes (named as in Python's pickletools), those
// that push values and build containers, the memo, and the stack. pickle_objects.cc has the rest.
#include "model/checkpoint/pickle.h"

#include <bit>

#include "common/status/status.h"
#include "model/checkpoint/unpickler.h"

namespace hanlin {

using Kind = PickleValue::Kind;

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
    if (!done) {
      return FailedPrecondition("pickle, byte {}: opcode {:#04x} is not used by torch.save", at,
                                opcode);
    }
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
