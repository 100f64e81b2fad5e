// The stages of StreamDecoder behind its piece table: each takes text bit by bit and returns what
// is final, so that the concatenation does not depend on the bits. Not thread-safe; copyable
// values.
#ifndef HANLIN_TOKENIZER_SVC_CORE_TEXT_STAGES_H_
#define HANLIN_TOKENIZER_SVC_CORE_TEXT_STAGES_H_

#include <string>
#include <string_view>

namespace hanlin {

// Bytes to valid UTF-8. Complete characters are appended to the output at once, an unfinished one
// is held.
class Utf8Assembler {
 public:
  enum class Broken {
    kOnePerPart,  // One U+FFFD per maximal broken part: Rust's from_utf8_lossy, WHATWG.
    kOnePerByte,  // One U+FFFD per byte that is in no complete character.
  };
  explicit Utf8Assembler(Broken broken) : broken_(broken) {}

  void Push(std::string_view bytes, std::string* out);
  // The held bytes cannot be completed any more.
  void Flush(std::string* out);

 private:
  Broken broken_;
  std::string held_;  // At most three bytes, a proper prefix of a character.
};

// text.replace(pattern, replacement), leftmost matches that do not overlap; holds a proper prefix
// of the pattern.
class StreamReplacer {
 public:
  // Both must outlive the object (string literals). `pattern` is not empty.
  StreamReplacer(std::string_view pattern, std::string_view replacement)
      : pattern_(pattern), replacement_(replacement) {}

  std::string Push(std::string_view text);
  std::string Flush();

 private:
  std::string_view pattern_;
  std::string_view replacement_;
  std::string held_;
};

// ModelScope's remove_space_between_chinese_chars: the text is split at spaces, neighbouring words
// made only of Chinese characters and of Chinese or ASCII punctuation are joined, and the result is
// stripped of white space. Holds one word, and white space that may prove to be trailing.
class ChineseSpaceJoiner {
 public:
  std::string Push(std::string_view text);
  std::string Flush();

 private:
  void EndWord(std::string* out);
  void Emit(std::string_view text, std::string* out);

  std::string word_;               // The word so far, without spaces.
  bool any_word_ = false;          // A word came before this one.
  bool last_was_chinese_ = false;  // … and it was Chinese.
  bool any_text_ = false;          // Something other than white space has come out.
  std::string white_;              // White space held back until text follows.
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_TEXT_STAGES_H_
