// A regular expression in Oniguruma's Ruby syntax over UTF-8, the dialect of tokenizer.json.
// Thread-safe.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_REGEX_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_REGEX_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/aligned_text.h"

struct re_pattern_buffer;  // Oniguruma's regex_t.

namespace hanlin {

class Regex {
 public:
  // INVALID_ARGUMENT: the pattern does not compile or is longer than 64 KiB.
  static absl::StatusOr<std::shared_ptr<const Regex>> Compile(std::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Appends all matches in valid UTF-8 `text`, left to right, disjoint; no empty match right behind
  // another. RESOURCE_EXHAUSTED: Oniguruma gave up on a pattern that backtracks too much.
  absl::Status FindAll(std::string_view text, std::vector<ByteSpan>* matches) const;

 private:
  explicit Regex(re_pattern_buffer* pattern) : pattern_(pattern) {}
  re_pattern_buffer* pattern_;
};

// All disjoint occurrences of `needle`, which is not empty.
void FindAllLiteral(std::string_view text, std::string_view needle, std::vector<ByteSpan>* matches);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_REGEX_H_
