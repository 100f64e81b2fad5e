// A piece of text on its way through normalizers and pre-tokenizers that remembers, for every byte,
// which characters of the original text it came from. The rules are those of Hugging Face's
// NormalizedString, so that the offsets of tokens come out the same: a replaced character keeps the
// span of the old one, an added one takes the span of its predecessor.
//
// A plain value: copy per thread.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_ALIGNED_TEXT_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_ALIGNED_TEXT_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hanlin {

// Bytes [begin, end).
struct ByteSpan {
  uint32_t begin;
  uint32_t end;
  friend bool operator==(const ByteSpan&, const ByteSpan&) = default;
};

// One character of a transformed text. `change`: 0 it replaces the next old character, 1 it is
// added, -n it replaces the next old character and the n characters after it go.
struct CharacterChange {
  char32_t code;
  int change;
};

// Bytes of the character that begins with `lead`, in valid UTF-8.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character of valid UTF-8 at *at, which moves past it.
char32_t TakeCharacter(std::string_view text, size_t* at);

class AlignedText {
 public:
  // `text`, valid UTF-8, as it stands at byte `offset` of the original.
  AlignedText(std::string_view text, uint32_t offset);

  const std::string& text() const { return text_; }
  bool empty() const { return text_.empty(); }
  // The original characters behind bytes [begin, end), which is not empty.
  ByteSpan Origin(size_t begin, size_t end) const;
  // Where the piece begins in the original.
  uint32_t offset() const { return offset_; }

  // Bytes [begin, end) as a piece of its own; both on character boundaries.
  AlignedText Slice(size_t begin, size_t end) const;

  // The text becomes `characters`, whose changes together use up all of the old one.
  void Transform(std::span<const CharacterChange> characters);
  void Map(const std::function<char32_t(char32_t)>& map);
  void Keep(const std::function<bool(char32_t)>& keep);
  // Nothing happens to an empty text.
  void Prepend(std::string_view prefix);
  // Replaces each of `matches` (ascending, disjoint) by `content`.
  void Replace(std::span<const ByteSpan> matches, std::string_view content);
  // Keeps bytes [begin, end).
  void Trim(size_t begin, size_t end);

 private:
  AlignedText() = default;

  std::string text_;
  std::vector<ByteSpan> origin_;  // [text_.size()] spans of whole characters in the original
  uint32_t offset_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_ALIGNED_TEXT_H_
