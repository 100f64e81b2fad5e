// See environment.h.
#include "common/flags/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>

#include "common/obs/log.h"

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

// Insertions, deletions, replacements and swaps of neighbours that make one of the other.
size_t EditDistance(std::string_view a, std::string_view b) {
  // Distances of a's first i - 2, i - 1 and i characters to every prefix of b.
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string Nearest(std::string_view name) {
  const std::string wanted = EnvironmentName(name.substr(kPrefix.size()));
  // Further away than this, a name is no misspelling: one letter, and one more for every four.
  size_t least = 2 + (wanted.size() - kPrefix.size()) / 4;
  std::string nearest;
  for (const std::string_view flag : kKnown) {
    std::string known = EnvironmentName(flag);
    const size_t distance = EditDistance(wanted, known);
    if (distance < least) {
      least = distance;
      nearest = std::move(known);
    }
  }
  return nearest;
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
    unknown.push_back({std::string(name), Nearest(name)});
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
