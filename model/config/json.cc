// See json.h.
#include "model/config/json.h"

#include <cmath>

#include "common/io/file.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// The value as JSON text, cut to what fits a message.
std::string Shown(const nlohmann::json& value) {
  // An ill-formed string inside must not throw.
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view what,
                                               int max_depth) {
  bool too_deep = false;
  // Deeper values are dropped while parsing, so that a file of brackets costs no memory.
  const auto keep = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > max_depth;
    return depth <= max_depth;
  };
  nlohmann::json value = nlohmann::json::parse(text, keep, /*allow_exceptions=*/false);
  if (too_deep) return InvalidArgument("{} is nested more than {} levels deep", what, max_depth);
  if (value.is_discarded()) return InvalidArgument("{} is not valid JSON", what);
  if (!value.is_object()) {
    return InvalidArgument("{} holds a JSON {}, want an object", what, value.type_name());
  }
  return value;
}

absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path, uint64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, max_bytes));
  return ParseJsonObject(text, path);
}

const nlohmann::json* JsonFields::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<std::optional<int32_t>> JsonFields::Int(const char* key, int32_t min,
                                                       int32_t max) const {
  ASSIGN_OR_RETURN(const std::optional<double> number, Number(key, min, max));
  if (!number) return std::optional<int32_t>();
  if (*number != std::floor(*number)) {
    return InvalidArgument("{}: {} is {}, want an integer", what_, key, *number);
  }
  return std::optional<int32_t>(static_cast<int32_t>(*number));
}

absl::StatusOr<std::optional<double>> JsonFields::Number(const char* key, double min,
                                                         double max) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) {
    return InvalidArgument("{}: {} is {}, want a number", what_, key, Shown(*value));
  }
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    return InvalidArgument("{}: {} is {}, want a number from {} to {}", what_, key, Shown(*value),
                           min, max);
  }
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<bool>> JsonFields::Bool(const char* key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) {
    return InvalidArgument("{}: {} is {}, want true or false", what_, key, Shown(*value));
  }
  return std::optional<bool>(value->get<bool>());
}

absl::StatusOr<std::optional<std::string>> JsonFields::String(const char* key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) {
    return InvalidArgument("{}: {} is {}, want a string", what_, key, Shown(*value));
  }
  return std::optional<std::string>(value->get<std::string>());
}

absl::StatusOr<int32_t> JsonFields::RequiredInt(const char* key, int32_t min, int32_t max) const {
  ASSIGN_OR_RETURN(const std::optional<int32_t> value, Int(key, min, max));
  if (!value) return InvalidArgument("{} has no {}, want an integer", what_, key);
  return *value;
}

}  // namespace hanlin
