// What a sentencepiece .model file (a protobuf, sentencepiece_model.proto) says about decoding,
// read straight from the wire format: the library does not offer it, and its protobuf must not meet
// ours. The walk also refuses files that would make the library read out of bounds: the precompiled
// character map is a double array that it follows unchecked.
//
//   ModelProto       2 TrainerSpec  3 NormalizerSpec  5 NormalizerSpec (denormalizer)
//   TrainerSpec      24 treat_whitespace_as_suffix  44 unk_surface
//   NormalizerSpec   2 precompiled_charsmap  3 add_dummy_prefix  4 remove_extra_whitespaces
//   charsmap         uint32 trie_bytes, trie units of uint32 (darts-clone), then the replacement
//                    strings, each NUL-ended
//
// Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SETTINGS_H_
#define HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SETTINGS_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace hanlin {

struct SentencePieceSettings {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool treat_whitespace_as_suffix = false;
  bool has_denormalizer = false;               // A denormalizer that changes text.
  std::string unk_surface = " \xE2\x81\x87 ";  // What the unknown piece decodes to, " ⁇ ".
};

// DATA_LOSS when `bytes` is not a well-formed model file.
absl::StatusOr<SentencePieceSettings> ReadSentencePieceSettings(std::string_view bytes);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_SENTENCEPIECE_SETTINGS_H_
