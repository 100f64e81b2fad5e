// See utf8.h.
#include "tokenizer_svc/core/utf8.h"

#include <algorithm>

namespace hanlin {
namespace {

// The form of a character by its first byte: length, and the range of the second byte (the rest
// are 80..BF).
struct Form {
  int length;
  uint8_t low, high;
};

Form FormOf(uint8_t first) {
  if (first < 0x80) return {1, 0, 0};
  if (first < 0xC2) return {0, 0, 0};
  if (first < 0xE0) return {2, 0x80, 0xBF};
  if (first == 0xE0) return {3, 0xA0, 0xBF};
  if (first == 0xED) return {3, 0x80, 0x9F};
  if (first < 0xF0) return {3, 0x80, 0xBF};
  if (first == 0xF0) return {4, 0x90, 0xBF};
  if (first < 0xF4) return {4, 0x80, 0xBF};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const Form form = FormOf(first);
  if (form.length == 0) return {Utf8Step::Kind::kBroken, 1, 0};
  if (form.length == 1) return {Utf8Step::Kind::kCharacter, 1, first};
  char32_t code = first & (0x7F >> form.length);
  for (int i = 1; i < form.length; ++i) {
    const uint8_t length = static_cast<uint8_t>(i);
    if (text.size() <= length) return {Utf8Step::Kind::kUnfinished, length, 0};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? form.low : 0x80;
    const uint8_t high = i == 1 ? form.high : 0xBF;
    if (byte < low || byte > high) return {Utf8Step::Kind::kBroken, length, 0};
    code = (code << 6) | (byte & 0x3F);
  }
  return {Utf8Step::Kind::kCharacter, static_cast<uint8_t>(form.length), code};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = NextUtf8(text.substr(at));
    if (step.kind != Utf8Step::Kind::kCharacter) break;
    at += step.length;
  }
  return at;
}

void AppendUtf8(char32_t code, std::string* out) {
  const auto byte = [out](char32_t value) { out->push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | (code >> 6));
    byte(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    byte(0xE0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  } else {
    byte(0xF0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3F));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  }
}

}  // namespace hanlin
