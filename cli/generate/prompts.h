// What the user wants continued: --prompt, --ids or the lines of a file.
#ifndef HANLIN_CLI_GENERATE_PROMPTS_H_
#define HANLIN_CLI_GENERATE_PROMPTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin::cli {

// "1,2,3", spaces allowed; INVALID_ARGUMENT names the entry that is no id.
absl::StatusOr<std::vector<int32_t>> ParseIds(std::string_view text);

// JSON lines {"prompt": "…"} or {"ids": [1, 2]}; empty lines are skipped. INVALID_ARGUMENT names
// the line.
absl::StatusOr<std::vector<v1::Prompt>> ParsePromptLines(std::string_view text);

// The lines of a file; "-" stands for standard input, which is read to its end. Errors name it.
absl::StatusOr<std::vector<v1::Prompt>> ReadPrompts(const std::string& input);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_GENERATE_PROMPTS_H_
