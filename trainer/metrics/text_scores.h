// ROUGE and BLEU of generated texts against one reference each, by the rules of ModelScope's
// "text-gen-metric", so that the numbers stand beside those of its recipes:
//
//   words   every Chinese character or punctuation mark is a word, the rest is split at white space
//   ROUGE   F1 of distinct words as package `rouge` counts them, sentences ending at "."; ROUGE-1:
//           the words in both; ROUGE-L: the words in a longest common subsequence of any sentence
//           with any of the reference's. A pair with a side of nothing but "." and space has 0;
//           the mean is over all pairs
//   BLEU    of the corpus, n-grams up to 1 or 4, zero counts smoothed by NIST's geometric sequence
//           (nltk's method3); an empty text counts as one word
//
// Thread-safe: pure functions.
#ifndef HANLIN_TRAINER_METRICS_TEXT_SCORES_H_
#define HANLIN_TRAINER_METRICS_TEXT_SCORES_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hanlin {

struct TextPair {
  std::string generated;
  std::string reference;
};

// Each in [0, 1]; 0 without pairs.
struct TextScores {
  double rouge_1 = 0;
  double rouge_l = 0;
  double bleu_1 = 0;
  double bleu_4 = 0;
};

TextScores ScoreTexts(std::span<const TextPair> pairs);

// UTF-8; broken bytes belong to the word around them.
std::vector<std::string> SplitWords(std::string_view text);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_METRICS_TEXT_SCORES_H_
