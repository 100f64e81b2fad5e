// See aligned_text.h.
#include "tokenizer_svc/core/json/aligned_text.h"

#include <algorithm>

#include "tokenizer_svc/core/utf8.h"

namespace hanlin {

char32_t TakeCharacter(std::string_view text, size_t* at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[*at + i]) & 0x3Fu; };
  const auto lead = static_cast<uint8_t>(text[*at]);
  const size_t length = Utf8Length(text[*at]);
  char32_t code = lead;
  if (length == 2) code = (lead & 0x1Fu) << 6 | byte(1);
  if (length == 3) code = (lead & 0x0Fu) << 12 | byte(1) << 6 | byte(2);
  if (length == 4) code = (lead & 0x07u) << 18 | byte(1) << 12 | byte(2) << 6 | byte(3);
  *at += length;
  return code;
}

AlignedText::AlignedText(std::string_view text, uint32_t offset) : text_(text), offset_(offset) {
  origin_.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8Length(text[at]);
    const auto begin = static_cast<uint32_t>(offset + at);
    origin_.insert(origin_.end(), length, {begin, static_cast<uint32_t>(begin + length)});
    at += length;
  }
}

ByteSpan AlignedText::Origin(size_t begin, size_t end) const {
  const uint32_t first = origin_[begin].begin;
  return {first, std::max(first, origin_[end - 1].end)};
}

AlignedText AlignedText::Slice(size_t begin, size_t end) const {
  AlignedText slice;
  slice.text_ = text_.substr(begin, end - begin);
  slice.origin_.assign(origin_.begin() + begin, origin_.begin() + end);
  slice.offset_ = begin < end ? origin_[begin].begin : offset_;
  return slice;
}

void AlignedText::Transform(std::span<const CharacterChange> characters) {
  std::string text;
  std::vector<ByteSpan> origin;
  text.reserve(text_.size());
  origin.reserve(text_.size());
  size_t at = 0;
  const auto skip = [&] { at = std::min(at + Utf8Length(text_[at]), text_.size()); };
  for (const auto& [code, change] : characters) {
    ByteSpan span{offset_, offset_};
    if (change > 0 && at > 0) span = origin_[at - 1];
    if (change <= 0 && at < text_.size()) span = origin_[at];
    for (int used = change; used <= 0 && at < text_.size(); ++used) skip();
    AppendUtf8(code, &text);
    origin.resize(text.size(), span);
  }
  text_ = std::move(text);
  origin_ = std::move(origin);
}

void AlignedText::Map(const std::function<char32_t(char32_t)>& map) {
  std::vector<CharacterChange> changes;
  for (size_t at = 0; at < text_.size();) changes.push_back({map(TakeCharacter(text_, &at)), 0});
  Transform(changes);
}

void AlignedText::Keep(const std::function<bool(char32_t)>& keep) {
  size_t kept = 0;
  for (size_t at = 0; at < text_.size();) {
    const size_t begin = at;
    if (!keep(TakeCharacter(text_, &at))) continue;
    std::copy(text_.begin() + begin, text_.begin() + at, text_.begin() + kept);
    std::copy(origin_.begin() + begin, origin_.begin() + at, origin_.begin() + kept);
    kept += at - begin;
  }
  Trim(0, kept);
}

void AlignedText::Prepend(std::string_view prefix) {
  if (text_.empty()) return;
  text_.insert(0, prefix);
  const ByteSpan first = origin_.front();
  origin_.insert(origin_.begin(), prefix.size(), first);
}

void AlignedText::Replace(std::span<const ByteSpan> matches, std::string_view content) {
  if (matches.empty()) return;
  std::string text;
  std::vector<ByteSpan> origin;
  size_t done = 0;
  const auto copy_until = [&](size_t end) {
    text.append(text_, done, end - done);
    origin.insert(origin.end(), origin_.begin() + done, origin_.begin() + end);
  };
  for (const ByteSpan& match : matches) {
    copy_until(match.begin);
    text += content;
    origin.resize(text.size(), match.end > 0 ? origin_[match.end - 1] : ByteSpan{offset_, offset_});
    done = match.end;
  }
  copy_until(text_.size());
  text_ = std::move(text);
  origin_ = std::move(origin);
}

void AlignedText::Trim(size_t begin, size_t end) {
  text_.erase(end).erase(0, begin);
  origin_.erase(origin_.begin() + end, origin_.end());
  origin_.erase(origin_.begin(), origin_.begin() + begin);
}

}  // namespace hanlin
