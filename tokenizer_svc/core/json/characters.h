// Classes of characters as the tokenizers of Hugging Face (Rust's char, unicode_categories)
// understand them, from utf8proc's tables. Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_CHARACTERS_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_CHARACTERS_H_

namespace hanlin {

bool IsWhitespace(char32_t code);   // Unicode's White_Space.
bool IsPunctuation(char32_t code);  // Any P category, and all of ASCII's punctuation and symbols.
bool IsNumeric(char32_t code);      // Nd, Nl, No.
bool IsOther(char32_t code);        // Cc, Cf, Cs, Co.
bool IsMark(char32_t code);         // Mn, Mc, Me.
bool IsNonspacingMark(char32_t code);  // Mn.
bool IsWordCharacter(char32_t code);   // \w: letters, marks, decimal digits, connectors.
bool IsBertChinese(char32_t code);     // The ideograph blocks that BERT surrounds with spaces.

// Simple lower case; 0130 (İ), whose lower case is two characters, gives the first of them.
char32_t ToLower(char32_t code);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_CHARACTERS_H_
