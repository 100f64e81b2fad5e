// UTF-8, strictly as Unicode 15 table 3-7 defines it: no overlong forms, no surrogates, nothing
// past U+10FFFF. Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_UTF8_H_
#define HANLIN_TOKENIZER_SVC_CORE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hanlin {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Step {
  enum class Kind : uint8_t {
    kCharacter,   // `length` bytes are the character `code`.
    kBroken,      // `length` bytes are a maximal broken part: one U+FFFD in a lossy conversion.
    kUnfinished,  // All `length` bytes there are begin a character.
  };
  Kind kind;
  uint8_t length;
  char32_t code;
};

// The first step of `text`, which is not empty.
Utf8Step NextUtf8(std::string_view text);

// Length of the longest prefix that is valid UTF-8; text.size() when all of it is.
size_t ValidUtf8Prefix(std::string_view text);

void AppendUtf8(char32_t code, std::string* out);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_UTF8_H_
