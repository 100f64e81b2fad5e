// See fields.h.
#include "tokenizer_svc/core/json/fields.h"

#include <limits>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"

namespace hanlin {

absl::StatusOr<Fields> Fields::Of(const Json& json, std::string where) {
  if (!json.is_object()) {
    return InvalidArgument("{} is of type {}, want an object", where, json.type_name());
  }
  return Fields(json, std::move(where));
}

const Json* Fields::Find(std::string_view key) const {
  const auto found = json_->find(std::string(key));
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

absl::Status Fields::Wrong(std::string_view key, std::string_view wanted) const {
  const Json* value = Find(key);
  return InvalidArgument("{}: \"{}\" is {}, want {}", where_, key,
                         value == nullptr ? "missing" : value->type_name(), wanted);
}

absl::StatusOr<std::string> Fields::String(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_string()) return Wrong(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::string> Fields::StringOr(std::string_view key,
                                             std::string_view otherwise) const {
  if (Find(key) == nullptr) return std::string(otherwise);
  return String(key);
}

absl::StatusOr<bool> Fields::Bool(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_boolean()) return Wrong(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<bool> Fields::BoolOr(std::string_view key, bool otherwise) const {
  if (Find(key) == nullptr) return otherwise;
  return Bool(key);
}

absl::StatusOr<int32_t> Fields::Int(std::string_view key) const {
  const Json* value = Find(key);
  constexpr uint64_t kMax = std::numeric_limits<int32_t>::max();
  if (value == nullptr || !value->is_number_unsigned() || value->get<uint64_t>() > kMax) {
    return Wrong(key, "an integer of 0 to 2147483647");
  }
  return value->get<int32_t>();
}

absl::StatusOr<int32_t> Fields::IntOr(std::string_view key, int32_t otherwise) const {
  if (Find(key) == nullptr) return otherwise;
  return Int(key);
}

absl::StatusOr<std::string> Fields::Character(std::string_view key) const {
  ASSIGN_OR_RETURN(std::string text, String(key));
  if (text.empty() || Utf8Length(text[0]) != text.size()) {
    return InvalidArgument("{}: \"{}\" is \"{}\", want one character", where_, key, text);
  }
  return text;
}

absl::StatusOr<const Json*> Fields::Array(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_array()) return Wrong(key, "an array");
  return value;
}

absl::StatusOr<const Json*> Fields::Object(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_object()) return Wrong(key, "an object");
  return value;
}

std::string Fields::Path(std::string_view key) const { return fmt::format("{}.{}", where_, key); }

std::string Fields::Path(std::string_view key, size_t index) const {
  return fmt::format("{}.{}[{}]", where_, key, index);
}

absl::Status UnknownType(std::string_view what, std::string_view type, std::string_view where) {
  return InvalidArgument("{}: {} \"{}\" is not implemented", where, what, type);
}

}  // namespace hanlin
