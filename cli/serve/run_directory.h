// A private folder for the sockets of one `hanlin serve`: mode 0700 under $XDG_RUNTIME_DIR, $TMPDIR
// or /tmp, removed with its contents in the end. Its path is short: a Unix socket address holds 107
// bytes. The file "lock" in it is locked for as long as its owner lives; the next start removes
// folders of this user that nobody holds any more (their owner was killed).
#ifndef HANLIN_CLI_SERVE_RUN_DIRECTORY_H_
#define HANLIN_CLI_SERVE_RUN_DIRECTORY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/net/socket.h"

namespace hanlin::cli {

class RunDirectory {
 public:
  // INTERNAL names the folder that could not be written.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Create();
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  RunDirectory(std::string path, FileDescriptor lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  FileDescriptor lock_;
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_SERVE_RUN_DIRECTORY_H_
