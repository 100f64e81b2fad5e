// Unicode normalization forms with a record of what became of every character (aligned_text.h).
// Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_UNICODE_FORMS_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_UNICODE_FORMS_H_

#include <string_view>
#include <vector>

#include "tokenizer_svc/core/json/aligned_text.h"

namespace hanlin {

struct UnicodeForm {
  bool compatibility;  // NFKC, NFKD
  bool compose;        // NFC, NFKC
};

// The characters of valid UTF-8 `text` in that form.
std::vector<CharacterChange> NormalizeUnicode(std::string_view text, UnicodeForm form);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_UNICODE_FORMS_H_
