// The opcodes that name classes and functions (unpickler.h). What a checkpoint may name is data,
// kGlobals; REDUCE is a switch over it, and everything else is refused by name.
#include <array>
#include <optional>
#include <string>

#include "absl/strings/escaping.h"
#include "common/status/status.h"
#include "model/checkpoint/unpickler.h"

namespace hanlin {
namespace {

using Kind = PickleValue::Kind;

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

}  // namespace

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
        Printable(items[2]->text));
  }
  const Global& type = kGlobals[static_cast<size_t>(items[1]->integer)];
  if (type.action != Action::kStorage)
    return DataLoss("a storage is of type {}.{}", type.module, type.name);
  const PickledStorage storage = {type.dtype, items[4]->integer};
  const auto [it, inserted] = document_.storages.emplace(items[2]->text, storage);
  if (!inserted && (it->second.dtype != storage.dtype || it->second.elements != storage.elements)) {
    return DataLoss("storage {} is described in two ways", Printable(items[2]->text));
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

}  // namespace hanlin
