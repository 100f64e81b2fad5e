// The "decoder" section of tokenizer.json as tables for the StreamDecoder. Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_DECODER_SECTION_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_DECODER_SECTION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/decoder_spec.h"
#include "tokenizer_svc/core/json/fields.h"

namespace hanlin {

// A token by id, as it goes into the decoder.
struct DecoderToken {
  std::string text;
  bool present = false;  // A token has this id.
  bool special = false;
};

// `json` may be null: tokens are joined by spaces. Steps: Sequence, ByteLevel, ByteFallback, Fuse,
// Metaspace, WordPiece, BPEDecoder, Replace, Strip. INVALID_ARGUMENT names another step, or one
// that cannot be streamed in its place (it would look at more than one token), and where it stands.
absl::StatusOr<DecoderSpec> ParseDecoderSection(const Json* json,
                                                const std::vector<DecoderToken>& tokens);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_DECODER_SECTION_H_
