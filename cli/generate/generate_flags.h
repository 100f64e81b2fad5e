// The options of `hanlin generate` and the requests of the public API they stand for.
#ifndef HANLIN_CLI_GENERATE_GENERATE_FLAGS_H_
#define HANLIN_CLI_GENERATE_GENERATE_FLAGS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/model/model_flags.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin::cli {

struct GenerateFlags {
  std::optional<std::string> prompt;
  std::optional<std::string> ids;
  std::string input;  // JSON lines
  ModelFlags model;
  std::string target;  // empty = in this process
  std::string tls_ca;
  double timeout_seconds = 600;
  v1::GenerationParameters parameters;
  std::string stop_ids;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
  bool greedy = false;
  bool stream = false;
  bool json = false;
};

void AddGenerateFlags(CLI::App& command, GenerateFlags& flags);

// One request per prompt. INVALID_ARGUMENT for options that contradict one another and for values
// that are wrong whatever the model is.
absl::StatusOr<std::vector<v1::StreamGenerateRequest>> MakeRequests(const GenerateFlags& flags);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_GENERATE_GENERATE_FLAGS_H_
