// A `hanlin serve` of this build as a child process, for measurements: started with given options
// on a port of its own, ready when Start returns, stopped with the object. Not thread-safe.
#ifndef HANLIN_CLI_BENCH_SERVER_PROCESS_H_
#define HANLIN_CLI_BENCH_SERVER_PROCESS_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/serve/process.h"

namespace hanlin::cli {

class ServerProcess {
 public:
  // `arguments` of hanlin serve beside --address. UNAVAILABLE with the server's last words when it
  // does not start.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const std::vector<std::string>& arguments);
  ~ServerProcess();

  const std::string& address() const { return address_; }

 private:
  explicit ServerProcess(ChildProcess child) : child_(std::move(child)) {}
  absl::Status WaitReady();
  void Drain();

  ChildProcess child_;
  std::string address_;
  std::string last_line_;  // of its stderr
  std::jthread drain_;     // keeps reading what the server writes
};

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_SERVER_PROCESS_H_
