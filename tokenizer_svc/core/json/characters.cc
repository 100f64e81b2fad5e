// See characters.h.
#include "tokenizer_svc/core/json/characters.h"

#include <utf8proc.h>

namespace hanlin {
namespace {

utf8proc_category_t Category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool Between(char32_t code, char32_t first, char32_t last) { return code >= first && code <= last; }

}  // namespace

bool IsWhitespace(char32_t code) {
  if (code < 0x80) return code == ' ' || Between(code, 0x09, 0x0D);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || Between(code, 0x2000, 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool IsPunctuation(char32_t code) {
  if (code < 0x80) {
    return Between(code, '!', '/') || Between(code, ':', '@') || Between(code, '[', '`') ||
           Between(code, '{', '~');
  }
  const auto category = Category(code);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsNumeric(char32_t code) {
  const auto category = Category(code);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsOther(char32_t code) {
  const auto category = Category(code);
  return category >= UTF8PROC_CATEGORY_CC && category <= UTF8PROC_CATEGORY_CO;
}

bool IsMark(char32_t code) {
  const auto category = Category(code);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsNonspacingMark(char32_t code) { return Category(code) == UTF8PROC_CATEGORY_MN; }

bool IsWordCharacter(char32_t code) {
  const auto category = Category(code);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC || code == 0x200C || code == 0x200D;
}

bool IsBertChinese(char32_t code) {
  return Between(code, 0x4E00, 0x9FFF) || Between(code, 0x3400, 0x4DBF) ||
         Between(code, 0x20000, 0x2A6DF) || Between(code, 0x2A700, 0x2B73F) ||
         Between(code, 0x2B740, 0x2B81F) || Between(code, 0x2B920, 0x2CEAF) ||
         Between(code, 0xF900, 0xFAFF) || Between(code, 0x2F800, 0x2FA1F);
}

char32_t ToLower(char32_t code) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}

}  // namespace hanlin
