// See run_directory.h.
#include "cli/serve/run_directory.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/status/status.h"

namespace hanlin::cli {
namespace {

// Room for the longest socket name within the 107 bytes of sun_path.
constexpr size_t kMaxPathBytes = 70;

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Create() {
  std::string error;
  for (const char* base : {static_cast<const char*>(std::getenv("XDG_RUNTIME_DIR")),
                           static_cast<const char*>(std::getenv("TMPDIR")), "/tmp"}) {
    if (base == nullptr || *base == '\0') continue;
    std::string path = fmt::format("{}/hanlin-XXXXXX", base);
    if (path.size() > kMaxPathBytes) {
      error += fmt::format(" {}: too long for a socket address;", base);
    } else if (mkdtemp(path.data()) != nullptr) {
      return std::unique_ptr<RunDirectory>(new RunDirectory(std::move(path)));
    } else {
      error += fmt::format(" {}: {};", base, strerror(errno));
    }
  }
  return Internal("cannot make a run directory:{} set TMPDIR to a writable folder", error);
}

RunDirectory::~RunDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace hanlin::cli
