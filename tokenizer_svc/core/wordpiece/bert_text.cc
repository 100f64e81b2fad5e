// See bert_text.h.
#include "tokenizer_svc/core/wordpiece/bert_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

bool IsWhite(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return (code >= 0x09 && code <= 0x0D) || code == 0x85;
  }
}

// Dropped: NUL, U+FFFD and the "other" categories but for tab and line ends.
bool IsDropped(char32_t code) {
  if (code == 0 || code == 0xFFFD) return true;
  if (code == '\t' || code == '\n' || code == '\r') return false;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      return true;
    default:
      return false;
  }
}

// BertNormalizer's blocks; its fourth extension block begins at 2B920, not at 2B820.
bool IsChinese(char32_t code) {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
         (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
         (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

bool IsPunctuation(char32_t code) {
  if (code < 0x80) {
    return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) ||
           (code >= 0x5B && code <= 0x60) || (code >= 0x7B && code <= 0x7E);
  }
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

// Cuts the stream of normalised characters into words.
class WordBuilder {
 public:
  explicit WordBuilder(std::vector<BertWord>* words) : words_(words) {}

  void Break() {
    if (!word_.text.empty()) words_->push_back(std::move(word_));
    word_ = {};
  }

  void Add(char32_t code, uint32_t begin, uint32_t end) {
    if (IsWhite(code)) return Break();
    const bool alone = IsPunctuation(code);
    if (alone) Break();
    word_.characters.push_back({static_cast<uint32_t>(word_.text.size()), begin, end});
    AppendUtf8(code, &word_.text);
    if (alone) Break();
  }

 private:
  std::vector<BertWord>* words_;
  BertWord word_;
};

// One source character after accents and case; at most 18 characters (the longest decomposition).
size_t Normalize(char32_t code, const BertTextOptions& options, utf8proc_int32_t out[18]) {
  utf8proc_ssize_t count = 1;
  out[0] = static_cast<utf8proc_int32_t>(code);
  if (options.strip_accents && code >= 0x80) {
    int boundary = 0;
    count = utf8proc_decompose_char(out[0], out, 18, UTF8PROC_DECOMPOSE, &boundary);
    count = std::clamp<utf8proc_ssize_t>(count, 0, 18);
    count = std::remove_if(
                out, out + count,
                [](utf8proc_int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_MN; }) -
            out;
  }
  if (options.lower_case) {
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      if (out[i] == 0x130) {  // The one character whose lower case is two: i and a dot above.
        out[i] = 'i';
        if (count < 18) {
          std::copy_backward(out + i + 1, out + count, out + count + 1);
          out[++i] = 0x307;
          ++count;
        }
      } else {
        out[i] = utf8proc_tolower(out[i]);
      }
    }
  }
  return static_cast<size_t>(count);
}

}  // namespace

void SplitBertWords(std::string_view text, uint32_t base, const BertTextOptions& options,
                    std::vector<BertWord>* words) {
  WordBuilder builder(words);
  utf8proc_int32_t normalized[18];
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = NextUtf8(text.substr(at));
    const uint32_t begin = base + static_cast<uint32_t>(at);
    const uint32_t end = begin + step.length;
    at += step.length;
    if (IsDropped(step.code)) continue;
    if (IsWhite(step.code)) {
      builder.Break();
      continue;
    }
    const bool alone = options.isolate_chinese && IsChinese(step.code);
    if (alone) builder.Break();
    const size_t count = Normalize(step.code, options, normalized);
    for (size_t i = 0; i < count; ++i) {
      builder.Add(static_cast<char32_t>(normalized[i]), begin, end);
    }
    if (alone) builder.Break();
  }
  builder.Break();
}

}  // namespace hanlin
