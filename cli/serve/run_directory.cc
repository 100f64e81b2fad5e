// See run_directory.h.
#include "cli/serve/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
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
constexpr std::string_view kPrefix = "hanlin-";
constexpr char kLock[] = "/lock";

// Makes the lock file under another name and locks it before it gets its own, so that a lock file
// that is not locked has no owner.
absl::StatusOr<FileDescriptor> Lock(const std::string& directory) {
  const std::string path = directory + kLock;
  const std::string draft = path + ".new";
  FileDescriptor lock(open(draft.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!lock.valid() || flock(lock.get(), LOCK_EX | LOCK_NB) != 0 ||
      std::rename(draft.c_str(), path.c_str()) != 0) {
    return Internal("cannot lock {}: {}", path, strerror(errno));
  }
  return lock;
}

// True for a folder of this user whose owner is gone. Never follows a link: the parent may be a
// place where everybody writes.
bool IsStale(const std::string& directory) {
  struct stat info = {};
  if (lstat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid()) {
    return false;
  }
  const FileDescriptor lock(
      open((directory + kLock).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return lock.valid() && flock(lock.get(), LOCK_EX | LOCK_NB) == 0;
}

void RemoveStale(const std::string& base) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(base, ignored)) {
    const std::string path = entry.path().string();
    if (!entry.path().filename().string().starts_with(kPrefix) || !IsStale(path)) continue;
    std::filesystem::remove_all(path, ignored);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Create() {
  std::string error;
  for (const char* base : {static_cast<const char*>(std::getenv("XDG_RUNTIME_DIR")),
                           static_cast<const char*>(std::getenv("TMPDIR")), "/tmp"}) {
    if (base == nullptr || *base == '\0') continue;
    std::string path = fmt::format("{}/{}XXXXXX", base, kPrefix);
    if (path.size() > kMaxPathBytes) {
      error += fmt::format(" {}: too long for a socket address;", base);
    } else if (mkdtemp(path.data()) != nullptr) {
      RemoveStale(base);
      ASSIGN_OR_RETURN(FileDescriptor lock, Lock(path));
      return std::unique_ptr<RunDirectory>(new RunDirectory(std::move(path), std::move(lock)));
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
