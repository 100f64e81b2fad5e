// Parses a JSON file that nobody vouches for. Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_FILE_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_FILE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/fields.h"

namespace hanlin {

inline constexpr size_t kMaxJsonBytes = size_t{64} << 20;
inline constexpr int kMaxJsonDepth = 32;

// RESOURCE_EXHAUSTED: over kMaxJsonBytes. INVALID_ARGUMENT: not JSON, nested deeper than
// kMaxJsonDepth, or an object with a member that occurs twice (named), where others would silently
// take one of the two.
absl::StatusOr<Json> ParseJsonFile(std::string_view contents);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_FILE_H_
