// See host.h. A limit may sit on any level between our own cgroup and the root, and inside a
// container the path of /proc/self/cgroup often does not exist under the mount; so every existing
// directory on the way up is looked at.
#include "common/host/host.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

#include "common/status/status.h"

namespace hanlin {
namespace {

std::optional<std::string> Slurp(const std::string& path) {
  std::ifstream file(path);  // files of /proc have no size, so not ReadFile
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::optional<uint64_t> NumberIn(const std::string& path) {
  const auto text = Slurp(path);
  return text ? ParseNumber(*text) : std::nullopt;  // "max" and "-1" are no numbers: no limit
}

// The number behind a line that begins with `key` in files such as memory.stat ("key 12") and
// meminfo ("key:  12 kB").
std::optional<uint64_t> Field(const std::string& path, std::string_view key) {
  const auto text = Slurp(path);
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    const size_t digit = line.find_first_of("0123456789", key.size());
    if (digit == std::string::npos) return std::nullopt;
    return ParseNumber(line.substr(digit));
  }
  return std::nullopt;
}

// Directories of a cgroup v1 controller, or of v2 when `controller` is empty: our own group first,
// then its parents.
std::vector<std::string> CgroupDirectories(const std::string& root, const std::string& controller) {
  const std::string mount = root + "/sys/fs/cgroup" + (controller.empty() ? "" : "/" + controller);
  std::string group = "/";
  std::istringstream lines(Slurp(root + "/proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/a/b", v2 "0::/a/b"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::istringstream names(line.substr(first + 1, second - first - 1));
    bool found = controller.empty() && second == first + 1;
    for (std::string name; std::getline(names, name, ',');) found |= name == controller;
    if (found) group = line.substr(second + 1);
  }
  std::vector<std::string> directories;
  while (group.size() > 1) {
    directories.push_back(mount + group);
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  directories.push_back(mount);
  return directories;
}

// What is left below the limit of one directory; nothing when it has none.
std::optional<uint64_t> RoomBelowLimit(const std::string& directory, const char* limit_file,
                                       const char* usage_file, const char* cache_key) {
  const auto limit = NumberIn(directory + "/" + limit_file);
  const auto usage = NumberIn(directory + "/" + usage_file);
  if (!limit || !usage) return std::nullopt;
  const uint64_t cache = Field(directory + "/memory.stat", cache_key).value_or(0);
  const uint64_t used = *usage > cache ? *usage - cache : 0;
  return *limit > used ? *limit - used : 0;
}

}  // namespace

absl::StatusOr<uint64_t> AvailableMemoryBytesUnder(const std::string& root) {
  const auto kilobytes = Field(root + "/proc/meminfo", "MemAvailable:");
  if (!kilobytes) return Unavailable("{}/proc/meminfo has no line MemAvailable", root);
  uint64_t room = *kilobytes * 1024;
  for (const std::string& directory : CgroupDirectories(root, "")) {
    const auto left = RoomBelowLimit(directory, "memory.max", "memory.current", "inactive_file");
    room = std::min(room, left.value_or(room));
  }
  for (const std::string& directory : CgroupDirectories(root, "memory")) {
    const auto left = RoomBelowLimit(directory, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                     "total_inactive_file");
    room = std::min(room, left.value_or(room));
  }
  return room;
}

int AvailableCpusUnder(const std::string& root, int affinity_cpus) {
  double cpus = affinity_cpus;
  const auto cap = [&cpus](std::optional<uint64_t> quota, std::optional<uint64_t> period) {
    if (!quota || !period || *period == 0) return;
    cpus = std::min(cpus, std::ceil(static_cast<double>(*quota) / *period));
  };
  for (const std::string& directory : CgroupDirectories(root, "")) {
    const std::string text =
        Slurp(directory + "/cpu.max").value_or("");  // "150000 100000" or "max 100000"
    const size_t space = text.find(' ');
    if (space == std::string::npos) continue;
    cap(ParseNumber(text), ParseNumber(text.substr(space + 1)));
  }
  for (const std::string& directory : CgroupDirectories(root, "cpu")) {
    cap(NumberIn(directory + "/cpu.cfs_quota_us"), NumberIn(directory + "/cpu.cfs_period_us"));
  }
  return std::max(1, static_cast<int>(cpus));
}

absl::StatusOr<uint64_t> AvailableMemoryBytes() { return AvailableMemoryBytesUnder(""); }

int AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails only on machines with over 1024 processors, where one is a safe, if slow, answer.
  const int affinity = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  return AvailableCpusUnder("", affinity);
}

}  // namespace hanlin
