// Structured logs on stderr: one line an event, as text or as JSON, with typed fields.
//   Log(LogLevel::kInfo, "request finished", {{"request_id", id}, {"code", "OK"}, {"tokens", 12}});
// Prompts and generated text are never logged. Thread-safe; SetupLogging is called once, early in
// main.
#ifndef HANLIN_COMMON_OBS_LOG_H_
#define HANLIN_COMMON_OBS_LOG_H_

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"

namespace hanlin {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One key and its value.
struct LogField {
  LogField(std::string_view key, std::string_view value) : key(key), value(std::string(value)) {}
  LogField(std::string_view key, const char* value) : key(key), value(std::string(value)) {}
  LogField(std::string_view key, const std::string& value) : key(key), value(value) {}
  LogField(std::string_view key, double value) : key(key), value(value) {}
  LogField(std::string_view key, bool value) : key(key), value(value) {}
  template <std::integral T>
  requires(!std::same_as<T, bool>) LogField(std::string_view key, T value)
      : key(key), value(static_cast<int64_t>(value)) {}

  std::string_view key;
  std::variant<std::string, int64_t, double, bool> value;
};

struct LogOptions {
  std::string process;          // shown in every line, e.g. "gateway" or "worker@1"
  std::string level = "info";   // debug, info, warning, error
  std::string format = "text";  // text, json
};

// INVALID_ARGUMENT on an unknown level or format.
absl::Status SetupLogging(const LogOptions& options);

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

}  // namespace hanlin

#endif  // HANLIN_COMMON_OBS_LOG_H_
