// Files: read whole, map read-only, write atomically. The only place that touches the file system
// for model and tokenizer data, so faults can be injected here. Thread-safe: no shared state.
#ifndef HANLIN_COMMON_IO_FILE_H_
#define HANLIN_COMMON_IO_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

// The whole file as a string. Files over `max_bytes` are refused (RESOURCE_EXHAUSTED) before
// anything is allocated.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     uint64_t max_bytes = uint64_t{1} << 30);

// Writes `path`.tmp, syncs and renames over `path`: readers see the old contents or the new, never
// a part.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

bool FileExists(const std::string& path);

// Names (not paths) of the entries of `directory`, sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& directory);

// A read-only mapping of a whole file. Pages load on first touch; a file truncated while mapped
// raises SIGBUS, so model files must be replaced by rename, never in place. Immutable, thus
// thread-safe.
class MappedFile {
 public:
  static absl::StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  std::string_view view() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const uint8_t* data_;  // nullptr for an empty file
  size_t size_;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_IO_FILE_H_
