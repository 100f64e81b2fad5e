// Ids to text, one id at a time, exactly as the whole list would decode. One decoder exists,
// streamed or not: Decode is this object run once, so for all ids and all chunkings the texts of
// Push and Flush concatenate to Decode.
//
//   ids ─▶ piece table (start rule, suffix) ─▶ UTF-8 assembler ─▶ strip left ─▶ clean-up ─▶ Chinese
//   spaces ─▶ text
//
// Each stage holds back only what a later id could still change (part of a character, a proper
// prefix of a pattern, one word). Every returned string is valid UTF-8 and may be empty.
//
// Not thread-safe: one object per stream; the spec is shared. Copyable, a copy continues on its
// own.
#ifndef HANLIN_TOKENIZER_SVC_CORE_STREAM_DECODER_H_
#define HANLIN_TOKENIZER_SVC_CORE_STREAM_DECODER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/decoder_spec.h"
#include "tokenizer_svc/core/text_stages.h"

namespace hanlin {

class StreamDecoder {
 public:
  // INVALID_ARGUMENT when `spec` is null. Cheap, one call a request: the spec must have passed
  // Validate before, as every spec from a loader or from the wire has.
  static absl::StatusOr<StreamDecoder> Create(std::shared_ptr<const DecoderSpec> spec);

  // The prompt, as context only: what follows is decoded as its continuation (no start rule, a
  // "##tail" joins, a character that the prompt left unfinished is completed) and none of the
  // prompt's own text is returned. Call it before the first Push, at most once.
  void Seed(std::span<const int32_t> prompt_ids);

  // The text that `id` makes final. Ids without a token, padding rows included, add nothing.
  std::string Push(int32_t id);

  // The rest, once no id follows. The decoder is finished after that.
  std::string Flush();

  // Push of every id and Flush. The spec must have passed Validate once.
  static std::string Decode(const DecoderSpec& spec, std::span<const int32_t> ids);

 private:
  explicit StreamDecoder(std::shared_ptr<const DecoderSpec> spec);

  std::string PushUnseeded(int32_t id);
  std::string FlushUnseeded();
  void AppendPiece(std::string_view piece, std::string* out);  // Piece table to assembler.
  std::string Finish(std::string text, bool last);             // The stages behind the assembler.
  std::string DropPromptText(std::string text);

  std::shared_ptr<const DecoderSpec> spec_;
  bool at_start_ = true;  // The start rule holds.
  std::string owed_;      // kSuffix: the last piece from its first suffix on.
  Utf8Assembler assembler_;
  uint32_t strip_left_;  // Characters that may still be stripped.
  std::vector<StreamReplacer> clean_up_;
  ChineseSpaceJoiner joiner_;
  std::string
      prompt_tail_;  // Prompt text that was not final after Seed: dropped from what follows.
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_STREAM_DECODER_H_
