// The "added_tokens" of tokenizer.json: pieces that are found in a text as a whole, before the
// model sees the rest. Thread-safe: immutable once parsed.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_ADDED_TOKENS_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/byte_trie.h"
#include "tokenizer_svc/core/json/fields.h"
#include "tokenizer_svc/core/json/normalizer.h"
#include "tokenizer_svc/core/json/vocabulary.h"

namespace hanlin {

struct AddedToken {
  int32_t id;
  std::string content;
  std::string
      pattern;       // What is looked for: `content`, put through the normalizer if `normalized`.
  bool special;      // Decodes to nothing; never found in a user's prompt.
  bool single_word;  // Not found inside a word.
  bool lstrip, rstrip;  // Takes white space on that side with it.
  bool normalized;      // Looked for in the normalized text instead of the original.
};

class AddedTokens {
 public:
  // A stretch [begin, end) of a text; `token` indexes tokens(), -1 for a stretch without one.
  struct Part {
    size_t begin, end;
    int32_t token;
  };

  // `json` may be null (none); `normalizer` too. INVALID_ARGUMENT: a token whose id is another
  // piece's, or twice.
  static absl::StatusOr<AddedTokens> Parse(const Json* json, const Vocabulary& vocabulary,
                                           const Normalizer* normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  // Whether there is anything to look for.
  bool Any(bool with_special) const { return with_special ? !tokens_.empty() : any_ordinary_; }

  // Divides `text`, leftmost and longest tokens first. Looks for the tokens whose `normalized` is
  // as given; special ones only if `with_special`.
  std::vector<Part> Divide(std::string_view text, bool normalized, bool with_special) const;

 private:
  // The token that takes [*begin, *end) after its flags had their say; false: not here.
  bool Accept(const AddedToken& token, std::string_view text, size_t taken, size_t* begin,
              size_t* end) const;

  std::vector<AddedToken> tokens_;
  bool any_ordinary_ = false;
  std::array<ByteTrie, 2> tries_;  // Indices of tokens by pattern, [normalized].
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_ADDED_TOKENS_H_
