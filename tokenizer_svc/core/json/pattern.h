// What Replace and Split look for: a fixed string or a regular expression. Thread-safe: immutable;
// cheap to copy.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_PATTERN_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_PATTERN_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/fields.h"
#include "tokenizer_svc/core/json/regex.h"

namespace hanlin {

class Pattern {
 public:
  // Reads {"String": …} or {"Regex": …} at `key`.
  static absl::StatusOr<Pattern> Parse(const Fields& fields, std::string_view key);
  static absl::StatusOr<Pattern> FromRegex(std::string_view regex);

  // Appends all matches, left to right, disjoint.
  absl::Status FindAll(std::string_view text, std::vector<ByteSpan>* matches) const;

 private:
  std::string literal_;  // Used when regex_ is null.
  std::shared_ptr<const Regex> regex_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_PATTERN_H_
