// The "pre_tokenizer" section of tokenizer.json: cuts a normalized text into the words that the
// model sees, and may rewrite them (▁ for a space, stand-ins for bytes). Thread-safe: immutable.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_PRE_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_PRE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/fields.h"

namespace hanlin {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends the words of `text`, none of them empty, to *words. `original_begin` is where the
  // original text (one jieba segment, where jieba cuts first) begins: Metaspace's "first" looks at
  // it.
  virtual absl::Status Cut(AlignedText text, uint32_t original_begin,
                           std::vector<AlignedText>* words) const = 0;
};

// Kinds: Sequence, ByteLevel, Metaspace, Whitespace, WhitespaceSplit, Punctuation, Digits, Split,
// CharDelimiterSplit, BertPreTokenizer. INVALID_ARGUMENT names another kind, or a member that is
// wrong, and where.
absl::StatusOr<std::unique_ptr<PreTokenizer>> ParsePreTokenizer(const Json& json,
                                                                const std::string& where);

// Metaspace, in the pre-tokenizer and the decoder alike.
enum class PrependScheme { kNever, kFirst, kAlways };
absl::StatusOr<PrependScheme> ParsePrependScheme(const Fields& fields);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_PRE_TOKENIZER_H_
