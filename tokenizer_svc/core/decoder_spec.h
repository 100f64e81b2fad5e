// How token ids become text, as data: plain tables that travel from the tokenizer service to every
// gateway (tokenizer_svc/wire) and are run by StreamDecoder. Every decoder we know is one of three
// table kinds with a few flags; a decoder that does not fit cannot be streamed and is refused by
// name when it is loaded.
//
//   source                     kind     tables and flags
//   byte-level BPE             kBytes   pieces are raw bytes (the byte alphabet already undone)
//   ByteFallback, Fuse         kText    <0xNN> ids carry kByte, their piece is that one byte
//   Metaspace                  kText    "▁" already a space; start_pieces without it, kFirstPiece
//   sentencepiece              kText    the same; kUntilText when extra white space is removed
//   Replace ▁, ByteFallback,   kText    strip_left
//     Fuse, Strip(" ", 1, 0)
//   WordPiece                  kText    " word", "tail" (of ##tail); start_pieces without the space
//   no decoder at all          kText    tokens joined by a space: " token"; start_pieces likewise
//   BPEDecoder (</w>)          kSuffix  pieces as in the vocabulary, suffix
//   BertTokenizer              kText    as WordPiece; clean_up_spaces, join_chinese
//
// A plain value; immutable (shared as shared_ptr<const DecoderSpec>) once filled.
#ifndef HANLIN_TOKENIZER_SVC_CORE_DECODER_SPEC_H_
#define HANLIN_TOKENIZER_SVC_CORE_DECODER_SPEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace hanlin {

struct DecoderSpec {
  enum class Kind : uint8_t {
    kBytes = 1,  // Pieces are bytes; together they are UTF-8. Broken UTF-8 becomes U+FFFD as Rust's
                 // from_utf8_lossy does it (one per maximal broken part).
    kText = 2,   // Pieces are whole UTF-8 text. Runs of kByte ids are bytes: complete characters
                 // come out at once, each stray byte is one U+FFFD.
    kSuffix =
        3,  // Every occurrence of `suffix` in a piece is a space, in the last piece it is nothing.
  };

  // When an id's text is taken from start_pieces instead of pieces.
  enum class StartRule : uint8_t {
    kNone = 0,
    kFirstPiece = 1,  // The first id that is neither special nor absent.
    kUntilText = 2,   // Every id until some text has come out.
  };

  // Attributes of an id, bits of `attributes`.
  static constexpr uint8_t kSpecial =
      1;  // Decodes to nothing (skip_special_tokens; sentencepiece: control).
  static constexpr uint8_t kByte = 2;  // kText: the piece is one byte of a byte run.
  static constexpr uint8_t kAbsent =
      4;  // No token has this id; decodes to nothing, and is not a first piece.

  Kind kind = Kind::kText;
  std::vector<std::string> pieces;        // By id.
  std::vector<uint8_t> attributes;        // By id, parallel to pieces.
  std::vector<std::string> start_pieces;  // By id; empty when start_rule is kNone.
  StartRule start_rule = StartRule::kNone;
  std::string suffix;  // kSuffix only.

  // What is done to the text as a whole, in this order.
  std::string strip_left;  // One character (or nothing), taken off the front of the whole text …
  uint32_t strip_left_count = 0;  // … at most this many times.
  bool clean_up_spaces =
      false;  // Hugging Face's clean_up_tokenization ("a ." -> "a.", "do n't" -> "don't").
  bool join_chinese =
      false;  // ModelScope's remove_space_between_chinese_chars (base and large models).

  // INVALID_ARGUMENT unless the tables agree with each other: parallel sizes, kByte pieces of one
  // byte in kText, valid UTF-8 in kText and kSuffix, a suffix exactly in kSuffix. Run on every spec
  // that comes from outside.
  absl::Status Validate() const;

  bool Has(int32_t id, uint8_t attribute) const { return (attributes[id] & attribute) != 0; }

  // The bytes that `id` stands for on its own (log-probabilities carry them): its piece; empty for
  // special, absent and out-of-range ids.
  std::string_view TokenBytes(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= pieces.size() || Has(id, kSpecial | kAbsent))
      return {};
    return pieces[id];
  }

  friend bool operator==(const DecoderSpec&, const DecoderSpec&) = default;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_DECODER_SPEC_H_
