// Command lines by CLI11 with the house's conventions: every flag `--some-name` of a service binary
// can also be set by the environment variable HANLIN_SOME_NAME; --help, --version; errors on stderr
// with exit code 2.
//   CLI::App app{"…"};  app.add_option(…);  if (auto code = ParseFlags(app, argc, argv)) return
//   *code;
#ifndef HANLIN_COMMON_FLAGS_FLAGS_H_
#define HANLIN_COMMON_FLAGS_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/obs/log.h"

namespace CLI {
class App;
}

namespace hanlin {

inline constexpr std::string_view kVersion = "0.1.0";

// Exit codes of the command-line contract.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// Adds --log-level and --log-format.
void AddLogFlags(CLI::App& app, LogOptions& options);

// Parses; returns the exit code when the program should end now (--help, --version, an error
// already printed). `environment` = also read HANLIN_* for every option of the app.
std::optional<int> ParseFlags(CLI::App& app, int argc, const char* const* argv,
                              bool environment = true);

// Prints "NAME: message" on stderr; returns kExitUsage for errors the user caused (bad argument,
// missing or damaged file, unmet precondition, too little memory), else kExitFailure.
int ReportError(std::string_view name, const absl::Status& status);

// `code`, if all that was printed on stdout has been written; else says that it was not (a full
// disk) and returns kExitFailure. The last call of a command.
int FinishOutput(std::string_view name, int code);

// "512MiB", "4GB", "1.5g", "1048576" to bytes. INVALID_ARGUMENT names the flag that holds the text.
absl::StatusOr<uint64_t> ParseSize(std::string_view flag, std::string_view text);

// Checks for CLI11's Option::check: empty, or what is wrong. Its own ones print the largest double.
std::string PositiveNumber(const std::string& text);
std::string NonNegativeNumber(const std::string& text);
// An address that a client can call (common/net/address.h).
std::string ServerAddress(const std::string& text);

}  // namespace hanlin

#endif  // HANLIN_COMMON_FLAGS_FLAGS_H_
