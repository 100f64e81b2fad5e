// See log.h.
#include "common/obs/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "common/status/status.h"

namespace hanlin {
namespace {

struct Logger {
  std::shared_ptr<spdlog::logger> sink = spdlog::stderr_logger_mt("hanlin");
  std::string process = "hanlin";
  bool json = false;
};

// Never destroyed: threads may log while the process exits.
Logger& Global() {
  static Logger* logger = [] {
    auto* made = new Logger;
    made->sink->set_pattern("%v");
    made->sink->flush_on(spdlog::level::info);
    return made;
  }();
  return *logger;
}

constexpr std::string_view kLevelNames[] = {"debug", "info", "warning", "error"};
constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                 spdlog::level::warn, spdlog::level::err};

std::string Timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch());
  const std::time_t seconds = since.count() / 1'000'000;
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  char buffer[32];
  std::strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:06d}Z", buffer, since.count() % 1'000'000);
}

std::string JsonLine(LogLevel level, std::string_view event, const std::string& process,
                     std::initializer_list<LogField> fields) {
  nlohmann::ordered_json line;
  line["time"] = Timestamp();
  line["level"] = kLevelNames[static_cast<int>(level)];
  line["process"] = process;
  line["event"] = event;
  for (const LogField& field : fields) {
    std::visit([&](const auto& value) { line[std::string(field.key)] = value; }, field.value);
  }
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Values with blanks, quotes or control characters are written as JSON strings, so a line stays a
// line.
std::string TextValue(const std::string& value) {
  const bool plain = !value.empty() && value.find_first_of(" \"\n\r\t=\\") == std::string::npos;
  if (plain) return value;
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TextLine(LogLevel level, std::string_view event, const std::string& process,
                     std::initializer_list<LogField> fields) {
  std::string line = fmt::format("{} {:7} {}: {}", Timestamp(),
                                 kLevelNames[static_cast<int>(level)], process, event);
  for (const LogField& field : fields) {
    line += fmt::format(" {}=", field.key);
    if (const auto* text = std::get_if<std::string>(&field.value)) {
      line += TextValue(*text);
    } else if (const auto* integer = std::get_if<int64_t>(&field.value)) {
      line += fmt::format("{}", *integer);
    } else if (const auto* real = std::get_if<double>(&field.value)) {
      line += fmt::format("{:.6g}", *real);
    } else {
      line += std::get<bool>(field.value) ? "true" : "false";
    }
  }
  return line;
}

}  // namespace

absl::Status SetupLogging(const LogOptions& options) {
  Logger& logger = Global();
  int level = -1;
  for (int i = 0; i < 4; ++i) {
    if (options.level == kLevelNames[i]) level = i;
  }
  if (level < 0) {
    return InvalidArgument("log level is \"{}\", want debug, info, warning or error",
                           options.level);
  }
  if (options.format != "text" && options.format != "json") {
    return InvalidArgument("log format is \"{}\", want text or json", options.format);
  }
  logger.sink->set_level(kLevels[level]);
  logger.process = options.process;
  logger.json = options.format == "json";
  return absl::OkStatus();
}

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  Logger& logger = Global();
  const auto spd_level = kLevels[static_cast<int>(level)];
  if (!logger.sink->should_log(spd_level)) return;
  const std::string line = logger.json ? JsonLine(level, event, logger.process, fields)
                                       : TextLine(level, event, logger.process, fields);
  logger.sink->log(spd_level, "{}", line);
}

}  // namespace hanlin
