// A sentencepiece tokenizer.model as a Tokenizer: segmentation by libsentencepiece, decoding by our
// decoder spec. Control pieces (<s>, </s>) are never matched in text, as in sentencepiece itself.
#ifndef HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SENTENCEPIECE_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SENTENCEPIECE_TOKENIZER_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin {

// `model` = the bytes of the file. DATA_LOSS when it is damaged, UNIMPLEMENTED naming an option
// that cannot be streamed (a denormalizer, white space as suffix).
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view model);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SENTENCEPIECE_TOKENIZER_H_
