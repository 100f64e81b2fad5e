// See file.h.
#include "common/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

absl::Status ErrnoStatus(std::string_view action, const std::string& path, int error) {
  const auto message = fmt::format("cannot {} {}: {}", action, path, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(message);
  return absl::UnknownError(message);
}

// Opens a regular file for reading and tells its size.
absl::StatusOr<int> OpenRegular(const std::string& path, uint64_t* size) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus("open", path, errno);
  struct stat info = {};
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return ErrnoStatus("stat", path, error);
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return InvalidArgument("{} is not a regular file", path);
  }
  *size = static_cast<uint64_t>(info.st_size);
  return fd;
}

absl::Status WriteAll(int fd, const std::string& path, std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus("write", path, errno);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return ErrnoStatus("sync", path, errno);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  uint64_t size = 0;
  ASSIGN_OR_RETURN(const int fd, OpenRegular(path, &size));
  auto closer = absl::MakeCleanup([fd] { close(fd); });
  if (size > max_bytes) {
    return ResourceExhausted("{} has {} bytes, want at most {}", path, size, max_bytes);
  }
  std::string contents(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(fd, contents.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus("read", path, errno);
    if (got == 0) return DataLoss("{} ended after {} bytes, want {}", path, done, size);
    done += static_cast<size_t>(got);
  }
  return contents;
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  const std::string temporary = path + ".tmp";
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus("create", temporary, errno);
  absl::Status status = WriteAll(fd, temporary, contents);
  close(fd);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus("rename to", path, errno);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

bool FileExists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  for (auto it = std::filesystem::directory_iterator(directory, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoStatus("list", directory, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::shared_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  uint64_t size = 0;
  ASSIGN_OR_RETURN(const int fd, OpenRegular(path, &size));
  auto closer = absl::MakeCleanup([fd] { close(fd); });
  const uint8_t* data = nullptr;
  if (size > 0) {
    void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) return ErrnoStatus("map", path, errno);
    data = static_cast<const uint8_t*>(mapping);
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace hanlin
