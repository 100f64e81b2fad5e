// The "normalizer" section of tokenizer.json: steps that rewrite a text before it is cut.
// Thread-safe: immutable.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_NORMALIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_NORMALIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/fields.h"

namespace hanlin {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual absl::Status Normalize(AlignedText* text) const = 0;
};

// Kinds: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, Prepend, Nmt,
// ByteLevel, BertNormalizer. INVALID_ARGUMENT names another kind, or a member that is wrong, and
// where it stands.
absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json& json,
                                                            const std::string& where);

// RESOURCE_EXHAUSTED when steps of a hostile file blow a text up to more than `bytes` should ever
// be.
absl::Status CheckExpansion(size_t bytes);

// GPT-2's printable stand-in for a byte, and back (-1: `code` stands for none).
char32_t ByteLevelCharacter(uint8_t byte);
int ByteLevelByte(char32_t code);

// Every byte becomes its stand-in.
void ToByteLevel(AlignedText* text);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_NORMALIZER_H_
