// The text of one continuation, id by id: the stream decoder followed by the stop strings. Whatever
// the ids arrive in, the texts returned concatenate to the decoded continuation, cut at its first
// stop string; the gateway and `hanlin generate` share it, so that a text never depends on who made
// it.
//
// The text of the first `min_new_tokens` ids passes without being searched for stop strings.
// Not thread-safe: one object per continuation; the spec is shared. Knows no proto and no gRPC.
#ifndef HANLIN_GATEWAY_TEXT_RELAY_H_
#define HANLIN_GATEWAY_TEXT_RELAY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/decoder_spec.h"
#include "tokenizer_svc/core/stop_matcher.h"
#include "tokenizer_svc/core/stream_decoder.h"

namespace hanlin {

class TextRelay {
 public:
  struct Options {
    std::shared_ptr<const DecoderSpec> spec;
    // Context of the decoder; read by Create only.
    std::span<const int32_t> prompt_ids;
    std::vector<std::string> stop_strings;
    // Keep the stop string in the text.
    bool include_stop = false;
    int32_t min_new_tokens = 0;
  };
  // INVALID_ARGUMENT for a spec or a stop string that does not validate.
  static absl::StatusOr<TextRelay> Create(const Options& options);

  // Appends the text that `id` makes final, valid UTF-8, to *text. True when a stop string ended
  // the continuation with this id; nothing may be pushed after that.
  bool Push(int32_t id, std::string* text);
  // An id that ends the text and has none in it (an end token). Counts like any other id.
  void Skip() { ++num_ids_; }
  // No id follows: appends what was withheld. True when that completed a stop string.
  bool Flush(std::string* text);

  // Ids pushed or skipped so far.
  int32_t num_ids() const { return num_ids_; }
  // Index of the stop string that ended the text.
  std::optional<size_t> stop() const;

 private:
  TextRelay(StreamDecoder decoder, std::optional<StopMatcher> matcher, int32_t min_new_tokens);

  bool Append(std::string_view piece, std::string* text);

  StreamDecoder decoder_;
  std::optional<StopMatcher> matcher_;  // Absent when there are no stop strings.
  int32_t min_new_tokens_;
  int32_t num_ids_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_TEXT_RELAY_H_
