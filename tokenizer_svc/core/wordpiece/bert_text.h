// BERT's text rules (Hugging Face's BertNormalizer and BertPreTokenizer): control characters
// dropped, white space made a space, Chinese characters isolated, accents stripped, lower case,
// words cut at white space and punctuation. Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_BERT_TEXT_H_
#define HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_BERT_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hanlin {

struct BertTextOptions {
  bool lower_case = true;
  bool strip_accents = true;
  bool isolate_chinese = true;
};

// A word of normalised text, and where each of its characters comes from.
struct BertWord {
  struct Character {
    uint32_t at;          // First byte within `text`.
    uint32_t begin, end;  // Bytes of the source character.
  };
  std::string text;
  std::vector<Character> characters;
};

// `text` is valid UTF-8; `base` is added to the source offsets. The words are appended.
void SplitBertWords(std::string_view text, uint32_t base, const BertTextOptions& options,
                    std::vector<BertWord>* words);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_BERT_TEXT_H_
