// Typed access to the members of a JSON object, with errors that say where in the file:
// "normalizer.normalizers[1]:
// \"content\" is a number, want a string". A member that is null counts as absent. Thread-safe: no
// state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_FIELDS_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hanlin {

using Json = nlohmann::json;

class Fields {
 public:
  // `json` must be an object and outlive this. `where` is its place in the file.
  static absl::StatusOr<Fields> Of(const Json& json, std::string where);

  const std::string& where() const { return where_; }
  // null when absent.
  const Json* Find(std::string_view key) const;

  absl::StatusOr<std::string> String(std::string_view key) const;
  absl::StatusOr<std::string> StringOr(std::string_view key, std::string_view otherwise) const;
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<bool> BoolOr(std::string_view key, bool otherwise) const;
  // An integer of 0…2^31-1.
  absl::StatusOr<int32_t> Int(std::string_view key) const;
  absl::StatusOr<int32_t> IntOr(std::string_view key, int32_t otherwise) const;
  // A string of exactly one character.
  absl::StatusOr<std::string> Character(std::string_view key) const;
  absl::StatusOr<const Json*> Array(std::string_view key) const;
  absl::StatusOr<const Json*> Object(std::string_view key) const;

  // where() + ".key" and where() + ".key[i]".
  std::string Path(std::string_view key) const;
  std::string Path(std::string_view key, size_t index) const;

 private:
  Fields(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {}
  absl::Status Wrong(std::string_view key, std::string_view wanted) const;

  const Json* json_;
  std::string where_;
};

// INVALID_ARGUMENT with the name of a kind that is not implemented and where it stands.
absl::Status UnknownType(std::string_view what, std::string_view type, std::string_view where);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_FIELDS_H_
