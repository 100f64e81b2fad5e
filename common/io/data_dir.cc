// See data_dir.h.
#include "common/io/data_dir.h"

#include <cstdlib>
#include <filesystem>

#include "common/io/file.h"
#include "common/status/status.h"

namespace hanlin {

std::string BinaryDirectory() {
  if (const char* override_path = std::getenv("HANLIN_BIN")) return override_path;
  std::error_code error;
  const auto executable = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::string(".") : executable.parent_path().string();
}

absl::StatusOr<std::string> DataDirectory() {
  if (const char* override_path = std::getenv("HANLIN_DATA")) return std::string(override_path);
  const std::string beside =
      std::filesystem::path(BinaryDirectory()).parent_path().string() + "/share/hanlin";
  if (FileExists(beside)) return beside;
  return NotFound("no data directory: HANLIN_DATA is not set and {} does not exist", beside);
}

absl::StatusOr<std::string> DefaultModelDirectory() {
  ASSIGN_OR_RETURN(const std::string data, DataDirectory());
  return data + "/models/hanlin-poet";
}

}  // namespace hanlin
