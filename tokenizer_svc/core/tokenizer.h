// Text to token ids: what every tokenizer of Hanlin offers, whatever file it was read from (jieba +
// tokenizer.json, tokenizer.json, vocab.txt, tokenizer.model; loader.h picks). The way back is the
// DecoderSpec, run by StreamDecoder.
//
// The base class checks the input once (UTF-8, size), so implementations only ever see valid UTF-8.
//
// Special tokens in the text ("<sep>", "[SEP]"): Encode does what upstream's tokenizer does, which
// recognises them for some kinds of tokenizer and never behind jieba. EncodePrompt, the way of
// every user's prompt, never recognises them: they are ordinary characters there, so no user can
// end a turn or forge one. Template tokens (BERT's [CLS]) are added by the tokenizer itself in
// both.
//
// Thread-safe: immutable once loaded; every method is const.
#ifndef HANLIN_TOKENIZER_SVC_CORE_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/decoder_spec.h"

namespace hanlin {

struct Encoding {
  std::vector<int32_t> ids;
  // Parallel to ids: the byte range [begin, end) of the text's whole characters that a token
  // touches. Tokens that no text stands behind (BERT's [CLS]) have an empty range.
  std::vector<std::pair<uint32_t, uint32_t>> offsets;
  // jieba's segments, which join to the text; absent when the text is not cut by jieba first.
  std::optional<std::vector<std::string>> segments;
};

class Tokenizer {
 public:
  // Texts over this many bytes are refused, so a request cannot hold a core for long.
  static constexpr size_t kMaxTextBytes = size_t{16} << 20;

  virtual ~Tokenizer() = default;

  // The whole text as upstream's tokenizer encodes it (BERT: [CLS] pieces [SEP]). INVALID_ARGUMENT:
  // not UTF-8 (the message names the byte) or over kMaxTextBytes.
  absl::StatusOr<Encoding> Encode(std::string_view text) const;

  // The ids that a model is fed to continue `text` (BERT: [CLS] pieces, because upstream's
  // generation overwrites [SEP]). Special tokens are not recognised. A NUL character is refused as
  // well: in a prompt it is a mistake.
  absl::StatusOr<Encoding> EncodePrompt(std::string_view text) const;

  // One short name for logs and GetTokenizerInfo: "jieba+bpe", "wordpiece", …
  virtual std::string_view kind() const = 0;

  // How ids become text again; never null.
  virtual std::shared_ptr<const DecoderSpec> decoder_spec() const = 0;

  // Largest id with a token, plus one. A model's vocabulary may be larger (padding rows).
  int32_t vocab_size() const { return static_cast<int32_t>(decoder_spec()->pieces.size()); }

  // sha256 over the tokenizer's files, see loader.h; empty until LoadTokenizer has set it.
  const std::string& fingerprint() const { return fingerprint_; }
  void set_fingerprint(std::string fingerprint) { fingerprint_ = std::move(fingerprint); }

 protected:
  enum class Use { kWhole, kPrompt };

  // `text` is valid UTF-8 of at most kMaxTextBytes.
  virtual absl::StatusOr<Encoding> EncodeValid(std::string_view text, Use use) const = 0;

 private:
  std::string fingerprint_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_TOKENIZER_H_
