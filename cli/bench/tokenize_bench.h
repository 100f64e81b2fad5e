// Speed of the tokenizer: megabytes of text a second, over the lines of a file or of a built-in
// corpus.
#ifndef HANLIN_CLI_BENCH_TOKENIZE_BENCH_H_
#define HANLIN_CLI_BENCH_TOKENIZE_BENCH_H_

#include <string>

#include "absl/status/statusor.h"
#include "cli/output/json.h"

namespace hanlin::cli {

struct TokenizeBenchOptions {
  std::string model;  // empty = the default model
  std::string input;  // text file; empty = built-in text
  int threads = 1;
  double seconds = 3;
};

// {"bench":"tokenize", …, "mb_per_second", "tokens_per_second", "decode_mb_per_second"}.
absl::StatusOr<Json> BenchTokenize(const TokenizeBenchOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_TOKENIZE_BENCH_H_
