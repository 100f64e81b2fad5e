// A tokenizer.json of Hugging Face's `tokenizers` library, read as data:
//
//   text ─▶ jieba (if asked for) ─▶ added tokens ─▶ normalizer ─▶ added tokens ─▶ pre-tokenizer ─▶
//   model ─▶ post-processor
//
// Each jieba segment goes through the middle of this on its own, as `encode(segments,
// is_pretokenized=True)` does. Kinds of every section that are not implemented are refused by name.
// "truncation" and "padding" are ignored, as transformers does unless a caller asks for them.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_TOKENIZER_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/jieba/jieba.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin {

// `contents` = the bytes of the file; `jieba` null: the text is not cut first. INVALID_ARGUMENT:
// not JSON, an unknown kind, a member that is missing or wrong, a merge of unknown pieces, and so
// on, naming the place in the file; RESOURCE_EXHAUSTED: over 64 MiB.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeJsonTokenizer(std::string_view contents,
                                                             std::shared_ptr<const Jieba> jieba);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_JSON_TOKENIZER_H_
