// JSON files from strangers: bounded in size and depth, and typed access that names the key, the
// value seen and what was wanted instead of throwing. Thread-safe: no state.
#ifndef HANLIN_MODEL_CONFIG_JSON_H_
#define HANLIN_MODEL_CONFIG_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hanlin {

// Parses one JSON object nested at most `max_depth` deep. `what` ("config.json") leads the error.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view what,
                                               int max_depth = 32);

// ReadFile, then ParseJsonObject.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path,
                                              uint64_t max_bytes = uint64_t{16} << 20);

// The fields of one JSON object. An absent key and null are the same: no value. A value of another
// type or out of range is INVALID_ARGUMENT.
class JsonFields {
 public:
  // `object` must outlive the reader. `what` leads every error.
  JsonFields(const nlohmann::json& object, std::string what)
      : object_(object), what_(std::move(what)) {}

  bool Has(const char* key) const { return Find(key) != nullptr; }
  absl::StatusOr<std::optional<int32_t>> Int(const char* key, int32_t min, int32_t max) const;
  absl::StatusOr<std::optional<double>> Number(const char* key, double min, double max) const;
  absl::StatusOr<std::optional<bool>> Bool(const char* key) const;
  absl::StatusOr<std::optional<std::string>> String(const char* key) const;
  // An integer that has to be there.
  absl::StatusOr<int32_t> RequiredInt(const char* key, int32_t min, int32_t max) const;
  // The value of `key`; nullptr when absent or null.
  const nlohmann::json* Find(const char* key) const;

 private:
  const nlohmann::json& object_;
  std::string what_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_CONFIG_JSON_H_
