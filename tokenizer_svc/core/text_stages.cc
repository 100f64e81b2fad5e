// See text_stages.h.
#include "tokenizer_svc/core/text_stages.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

// ModelScope's CHINESE_PUNCTUATION and string.punctuation (modelscope/utils/chinese_utils.py), as
// ranges.
constexpr std::array<std::pair<char32_t, char32_t>, 22> kPunctuation = {{
    {0x21, 0x2F},     {0x3A, 0x40},     {0x5B, 0x60},     {0x7B, 0x7E},     {0xB7, 0xB7},
    {0x2013, 0x2014}, {0x2018, 0x2019}, {0x201B, 0x201F}, {0x2026, 0x2027}, {0x3000, 0x3003},
    {0x3008, 0x3011}, {0x3014, 0x301F}, {0x3030, 0x3030}, {0x303E, 0x303F}, {0xFE4F, 0xFE4F},
    {0xFE51, 0xFE51}, {0xFE54, 0xFE54}, {0xFF01, 0xFF0D}, {0xFF0F, 0xFF0F}, {0xFF1A, 0xFF20},
    {0xFF3B, 0xFF40}, {0xFF5B, 0xFF64},
}};

// The CJK blocks that ModelScope counts as Chinese characters.
constexpr std::array<std::pair<char32_t, char32_t>, 8> kChinese = {{
    {0x3400, 0x4DBF},
    {0x4E00, 0x9FFF},
    {0xF900, 0xFAFF},
    {0x20000, 0x2A6DF},
    {0x2A700, 0x2B73F},
    {0x2B740, 0x2B81F},
    {0x2B820, 0x2CEAF},
    {0x2F800, 0x2FA1F},
}};

template <size_t N>
bool InRanges(const std::array<std::pair<char32_t, char32_t>, N>& ranges, char32_t code) {
  return std::any_of(ranges.begin(), ranges.end(), [code](const auto& range) {
    return code >= range.first && code <= range.second;
  });
}

// The white space that Python's str.strip() removes.
bool IsWhite(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

// An empty word counts as Chinese, as upstream's all() over nothing does.
bool IsChineseWord(std::string_view word) {
  while (!word.empty()) {
    const Utf8Step step = NextUtf8(word);
    if (!InRanges(kChinese, step.code) && !InRanges(kPunctuation, step.code)) return false;
    word.remove_prefix(step.length);
  }
  return true;
}

}  // namespace

void Utf8Assembler::Push(std::string_view bytes, std::string* out) {
  held_.append(bytes);
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Step::Kind::kUnfinished) break;
    size_t length = step.length;
    if (step.kind == Utf8Step::Kind::kCharacter) {
      out->append(rest.substr(0, length));
    } else {
      out->append(kReplacementCharacter);
      if (broken_ == Broken::kOnePerByte) length = 1;
    }
    rest.remove_prefix(length);
  }
  held_.erase(0, held_.size() - rest.size());
}

void Utf8Assembler::Flush(std::string* out) {
  if (held_.empty()) return;
  const size_t count = broken_ == Broken::kOnePerByte ? held_.size() : 1;
  for (size_t i = 0; i < count; ++i) out->append(kReplacementCharacter);
  held_.clear();
}

std::string StreamReplacer::Push(std::string_view text) {
  held_.append(text);
  std::string out;
  size_t at = 0;
  for (size_t match; (match = held_.find(pattern_, at)) != std::string::npos;) {
    out.append(held_, at, match - at).append(replacement_);
    at = match + pattern_.size();
  }
  // What remains has no match; its longest suffix that begins the pattern waits for the next text.
  const std::string_view held = held_;
  const std::string_view pattern = pattern_;
  size_t keep = std::min(held.size() - at, pattern.size() - 1);
  while (!held.ends_with(pattern.substr(0, keep))) --keep;
  out.append(held_, at, held_.size() - keep - at);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StreamReplacer::Flush() { return std::exchange(held_, {}); }

std::string ChineseSpaceJoiner::Push(std::string_view text) {
  std::string out;
  for (size_t space; (space = text.find(' ')) != std::string_view::npos;) {
    word_.append(text.substr(0, space));
    EndWord(&out);
    text.remove_prefix(space + 1);
  }
  word_.append(text);
  return out;
}

std::string ChineseSpaceJoiner::Flush() {
  std::string out;
  EndWord(&out);
  white_.clear();
  return out;
}

void ChineseSpaceJoiner::EndWord(std::string* out) {
  const bool chinese = IsChineseWord(word_);
  if (any_word_ && !(chinese && last_was_chinese_)) Emit(" ", out);
  Emit(word_, out);
  word_.clear();
  any_word_ = true;
  last_was_chinese_ = chinese;
}

void ChineseSpaceJoiner::Emit(std::string_view text, std::string* out) {
  while (!text.empty()) {
    const Utf8Step step = NextUtf8(text);
    if (IsWhite(step.code)) {
      if (any_text_) white_.append(text.substr(0, step.length));
    } else {
      out->append(white_).append(text.substr(0, step.length));
      white_.clear();
      any_text_ = true;
    }
    text.remove_prefix(step.length);
  }
}

}  // namespace hanlin
