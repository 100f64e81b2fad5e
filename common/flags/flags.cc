// See flags.h.
#include "common/flags/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "common/flags/environment.h"
#include "common/net/address.h"
#include "common/status/status.h"
#include "common/text/nearest.h"

namespace hanlin {
namespace {

// CLI11 misses a subcommand without a word about the one that it does not know. Empty: there is no
// such word, the last command known got its subcommand.
std::string UnknownCommand(const CLI::App& app) {
  const CLI::App* last = &app;
  while (!last->get_subcommands().empty()) last = last->get_subcommands().front();
  const std::vector<std::string> words = last->remaining();
  if (last->get_require_subcommand_min() == 0 || words.empty()) return "";
  std::vector<std::string_view> names;
  for (const CLI::App* command : last->get_subcommands({})) names.push_back(command->get_name());
  const std::string_view nearest = Nearest(words.front(), names, 2);
  return fmt::format("there is no command \"{}\"{}, want one of {}", words.front(),
                     nearest.empty() ? "" : fmt::format(" (do you mean \"{}\"?)", nearest),
                     fmt::join(names, ", "));
}

// The number that `text` is, if it is one and nothing else.
std::optional<double> Number(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end || !std::isfinite(number)) return std::nullopt;
  return number;
}

}  // namespace

void AddLogFlags(CLI::App& app, LogOptions& options) {
  app.add_option("--log-level", options.level, "debug, info, warning or error")
      ->capture_default_str();
  app.add_option("--log-format", options.format, "text or json")->capture_default_str();
}

std::optional<int> ParseFlags(CLI::App& app, int argc, const char* const* argv, bool environment) {
  app.set_version_flag("--version", fmt::format("{} {}", app.get_name(), kVersion));
  app.get_formatter()->column_width(34);
  if (environment) {
    for (CLI::Option* option : app.get_options()) {
      if (option->get_lnames().empty()) continue;
      const std::string& flag = option->get_lnames().front();
      if (flag != "help" && flag != "version") option->envname(EnvironmentName(flag));
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    const std::string unknown = UnknownCommand(app);
    fmt::print(stderr, "{}: {} (see --help)\n", app.get_name(),
               unknown.empty() ? error.what() : unknown);
    return kExitUsage;
  }
  return std::nullopt;
}

int ReportError(std::string_view name, const absl::Status& status) {
  fmt::print(stderr, "{}: {}\n", name, Message(status));
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kResourceExhausted:
      return kExitUsage;
    default:
      return kExitFailure;
  }
}

int FinishOutput(std::string_view name, int code) {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::ferror(stdout) == 0) return code;
  // An earlier flush may have failed, whose reason is gone.
  fmt::print(stderr, "{}: the output could not be written{}{}\n", name, errno == 0 ? "" : ": ",
             errno == 0 ? "" : std::strerror(errno));
  return kExitFailure;
}

absl::StatusOr<uint64_t> ParseSize(std::string_view flag, std::string_view text) {
  const absl::Status bad = InvalidArgument(
      "{} is \"{}\", want a number with an optional KiB, MiB, GiB, TiB, KB, MB, GB or TB", flag,
      text);
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return bad;
  std::string unit(rest, end);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    const size_t power = std::string_view("kmgt").find(unit[0]);
    if (power == std::string_view::npos) return bad;
    const std::string tail = unit.substr(1);
    if (tail == "b") {
      factor = std::pow(1000.0, static_cast<double>(power + 1));
    } else if (tail.empty() || tail == "i" || tail == "ib") {
      factor = std::pow(1024.0, static_cast<double>(power + 1));
    } else {
      return bad;
    }
  }
  if (number * factor > 9e18) return bad;
  return static_cast<uint64_t>(number * factor);
}

std::string PositiveNumber(const std::string& text) {
  if (Number(text).value_or(0) > 0) return "";
  return fmt::format("is \"{}\", want a number above 0", text);
}

std::string NonNegativeNumber(const std::string& text) {
  if (Number(text).value_or(-1) >= 0) return "";
  return fmt::format("is \"{}\", want a number of at least 0", text);
}

std::string ServerAddress(const std::string& text) {
  if (IsServerAddress(text)) return "";
  return fmt::format("is \"{}\", want HOST:PORT, unix:PATH or dns:///NAME:PORT", text);
}

}  // namespace hanlin
