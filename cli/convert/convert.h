// Rewrites a model folder of any layout and number of shards in Hugging Face's layout, whole. Reads
// and writes tensor by tensor: what it holds in memory is the largest one, twice.
#ifndef HANLIN_CLI_CONVERT_CONVERT_H_
#define HANLIN_CLI_CONVERT_CONVERT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace hanlin::cli {

struct ConvertOptions {
  std::string from;  // model folder
  std::string to;    // must not exist; appears whole or not at all
  std::string format = "hf";
  std::string dtype = "fp32";  // or bf16
};

// The number of parameters written.
absl::StatusOr<int64_t> Convert(const ConvertOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_CONVERT_CONVERT_H_
