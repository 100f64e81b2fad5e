// See environment.h.
#include "common/flags/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "common/obs/log.h"
#include "common/text/nearest.h"

namespace hanlin {
namespace {

constexpr std::string_view kPrefix = "HANLIN_";
// Faults on purpose, each read where it happens.
constexpr std::string_view kFailpointPrefix = "HANLIN_FAILPOINT_";

// Flags of any service, then variables that are no flags. tests/deploy/settings_test.py holds the
// first against what the services say in --help.
constexpr auto kKnown = std::to_array<std::string_view>(
    {"address", "batch-invariant", "device", "drain-timeout", "dtype", "host-ranks", "kv-memory",
     "leader", "log-format", "log-level", "max-batch-tokens", "max-connection-age", "max-queue",
     "max-queue-tokens", "max-running", "metrics-address", "model", "model-name", "null-step-us",
     "parent-death", "random-weights", "rank", "stall-timeout", "threads", "tls-cert",
     "tls-client-ca", "tls-key", "tokenizer", "tokenizer-ca", "tokenizer-fingerprint",
     "tokenizer-name", "tp", "workers",
     // Where binaries and data lie, the instruction set of the CPU.
     "bin", "cpu-isa", "data"});

std::string NearestVariable(std::string_view name) {
  std::vector<std::string> known(kKnown.size());
  std::transform(kKnown.begin(), kKnown.end(), known.begin(), EnvironmentName);
  const std::vector<std::string_view> names(known.begin(), known.end());
  // More edits make no misspelling: one, and one more for every four letters.
  const std::string wanted = EnvironmentName(name.substr(kPrefix.size()));
  return std::string(Nearest(wanted, names, 1 + (wanted.size() - kPrefix.size()) / 4));
}

}  // namespace

std::string EnvironmentName(std::string_view flag) {
  std::string name(kPrefix);
  for (const char c : flag) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::vector<UnknownVariable> FindUnknownVariables(const char* const* environment) {
  std::vector<UnknownVariable> unknown;
  for (; *environment != nullptr; ++environment) {
    const std::string_view variable = *environment;
    const std::string_view name = variable.substr(0, variable.find('='));
    if (!name.starts_with(kPrefix) || name.starts_with(kFailpointPrefix)) continue;
    const auto is_name = [name](std::string_view flag) { return EnvironmentName(flag) == name; };
    if (std::any_of(kKnown.begin(), kKnown.end(), is_name)) continue;
    unknown.push_back({std::string(name), NearestVariable(name)});
  }
  std::sort(unknown.begin(), unknown.end(),
            [](const UnknownVariable& a, const UnknownVariable& b) { return a.name < b.name; });
  return unknown;
}

void LogUnknownVariables() {
  for (const UnknownVariable& variable : FindUnknownVariables(environ)) {
    constexpr std::string_view kEvent = "no program reads this variable of the environment";
    if (variable.nearest.empty()) {
      Log(LogLevel::kWarning, kEvent, {{"name", variable.name}});
    } else {
      Log(LogLevel::kWarning, kEvent, {{"name", variable.name}, {"meant", variable.nearest}});
    }
  }
}

}  // namespace hanlin
