// See stream_decoder.h.
#include "tokenizer_svc/core/stream_decoder.h"

#include <algorithm>
#include <utility>

#include "common/status/status.h"

namespace hanlin {
namespace {

// transformers' clean_up_tokenization: these replacements over the whole text, one after the other.
constexpr std::pair<std::string_view, std::string_view> kCleanUp[] = {
    {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

std::string ReplaceAll(std::string_view text, std::string_view pattern,
                       std::string_view replacement) {
  StreamReplacer replacer(pattern, replacement);
  std::string out = replacer.Push(text);
  return out += replacer.Flush();
}

// A pointer that owns nothing, for the time of one Decode.
std::shared_ptr<const DecoderSpec> Borrow(const DecoderSpec& spec) {
  return {std::shared_ptr<const DecoderSpec>(), &spec};
}

}  // namespace

absl::StatusOr<StreamDecoder> StreamDecoder::Create(std::shared_ptr<const DecoderSpec> spec) {
  if (spec == nullptr) return InvalidArgument("stream decoder: there is no decoder spec");
  return StreamDecoder(std::move(spec));
}

StreamDecoder::StreamDecoder(std::shared_ptr<const DecoderSpec> spec)
    : spec_(std::move(spec)),
      assembler_(spec_->kind == DecoderSpec::Kind::kBytes ? Utf8Assembler::Broken::kOnePerPart
                                                          : Utf8Assembler::Broken::kOnePerByte),
      strip_left_(spec_->strip_left.empty() ? 0 : spec_->strip_left_count) {
  if (!spec_->clean_up_spaces) return;
  for (const auto& [pattern, replacement] : kCleanUp) clean_up_.emplace_back(pattern, replacement);
}

void StreamDecoder::Seed(std::span<const int32_t> prompt_ids) {
  for (const int32_t id : prompt_ids) PushUnseeded(id);
  // What the prompt alone would still have given is its own text, even if it only comes out later.
  prompt_tail_ = StreamDecoder(*this).FlushUnseeded();
}

std::string StreamDecoder::Push(int32_t id) { return DropPromptText(PushUnseeded(id)); }

std::string StreamDecoder::Flush() { return DropPromptText(FlushUnseeded()); }

std::string StreamDecoder::Decode(const DecoderSpec& spec, std::span<const int32_t> ids) {
  StreamDecoder decoder(Borrow(spec));
  std::string text;
  for (const int32_t id : ids) text += decoder.PushUnseeded(id);
  return text += decoder.FlushUnseeded();
}

std::string StreamDecoder::PushUnseeded(int32_t id) {
  if (id < 0 || static_cast<size_t>(id) >= spec_->pieces.size() ||
      spec_->Has(id, DecoderSpec::kSpecial | DecoderSpec::kAbsent)) {
    return {};
  }
  const bool start = at_start_ && spec_->start_rule != DecoderSpec::StartRule::kNone;
  const std::string& piece = start ? spec_->start_pieces[id] : spec_->pieces[id];
  if (spec_->start_rule != DecoderSpec::StartRule::kUntilText || !piece.empty()) at_start_ = false;

  std::string text;
  switch (spec_->kind) {
    case DecoderSpec::Kind::kBytes:
      assembler_.Push(piece, &text);
      break;
    case DecoderSpec::Kind::kText:
      if (spec_->Has(id, DecoderSpec::kByte)) {
        assembler_.Push(piece, &text);
      } else {
        assembler_.Flush(&text);
        text += piece;
      }
      break;
    case DecoderSpec::Kind::kSuffix:
      text = ReplaceAll(std::exchange(owed_, {}), spec_->suffix, " ");
      const size_t suffix = std::min(piece.find(spec_->suffix), piece.size());
      text.append(piece, 0, suffix);
      owed_ = piece.substr(suffix);
      break;
  }
  return Finish(std::move(text), /*last=*/false);
}

std::string StreamDecoder::FlushUnseeded() {
  std::string text;
  if (!owed_.empty()) text = ReplaceAll(std::exchange(owed_, {}), spec_->suffix, "");
  assembler_.Flush(&text);
  return Finish(std::move(text), /*last=*/true);
}

std::string StreamDecoder::Finish(std::string text, bool last) {
  while (strip_left_ > 0 && !text.empty()) {
    if (!text.starts_with(spec_->strip_left)) {
      strip_left_ = 0;
      break;
    }
    text.erase(0, spec_->strip_left.size());
    --strip_left_;
  }
  for (StreamReplacer& replacer : clean_up_) {
    text = replacer.Push(text);
    if (last) text += replacer.Flush();
  }
  if (spec_->join_chinese) {
    text = joiner_.Push(text);
    if (last) text += joiner_.Flush();
  }
  return text;
}

std::string StreamDecoder::DropPromptText(std::string text) {
  if (prompt_tail_.empty()) return text;
  size_t common =
      std::mismatch(text.begin(), text.end(), prompt_tail_.begin(), prompt_tail_.end()).first -
      text.begin();
  if (common == text.size()) {  // All of it is the prompt's, more may come.
    prompt_tail_.erase(0, common);
    return {};
  }
  // The continuation begins here; never inside a character.
  while (common > 0 && (text[common] & 0xC0) == 0x80) --common;
  prompt_tail_.clear();
  return text.substr(common);
}

}  // namespace hanlin
