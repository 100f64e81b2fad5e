// See text_relay.h.
#include "gateway/text_relay.h"

#include <utility>

#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<TextRelay> TextRelay::Create(const Options& options) {
  ASSIGN_OR_RETURN(StreamDecoder decoder, StreamDecoder::Create(options.spec));
  decoder.Seed(options.prompt_ids);
  std::optional<StopMatcher> matcher;
  if (!options.stop_strings.empty()) {
    ASSIGN_OR_RETURN(matcher, StopMatcher::Create(options.stop_strings, options.include_stop));
  }
  return TextRelay(std::move(decoder), std::move(matcher), options.min_new_tokens);
}

TextRelay::TextRelay(StreamDecoder decoder, std::optional<StopMatcher> matcher,
                     int32_t min_new_tokens)
    : decoder_(std::move(decoder)), matcher_(std::move(matcher)), min_new_tokens_(min_new_tokens) {}

bool TextRelay::Push(int32_t id, std::string* text) {
  ++num_ids_;
  return Append(decoder_.Push(id), text);
}

bool TextRelay::Flush(std::string* text) {
  if (Append(decoder_.Flush(), text)) return true;
  if (matcher_.has_value()) text->append(matcher_->Flush());
  return false;
}

bool TextRelay::Append(std::string_view piece, std::string* text) {
  if (!matcher_.has_value() || num_ids_ <= min_new_tokens_) {
    text->append(piece);
    return false;
  }
  text->append(matcher_->Push(piece));
  return matcher_->match().has_value();
}

std::optional<size_t> TextRelay::stop() const {
  if (!matcher_.has_value() || !matcher_->match().has_value()) return std::nullopt;
  return matcher_->match()->stop;
}

}  // namespace hanlin
