// See text_scores.h.
#include "trainer/metrics/text_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

using Words = std::vector<std::string>;

constexpr std::pair<char32_t, char32_t> kIdeographs[] = {
    {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
    {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0x2F800, 0x2FA1F},
};
constexpr std::u32string_view kPunctuation =
    U"＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃〈〉《》「」『』【】〔〕"
    U"〖〗〘〙〚〛〜〝〞〟〰〾〿"
    U"–—‘’‛“”„‟…‧﹏﹑﹔·！？｡。";

bool IsWord(char32_t code) {
  return kPunctuation.find(code) != kPunctuation.npos ||
         std::any_of(std::begin(kIdeographs), std::end(kIdeographs), [code](const auto& range) {
           return code >= range.first && code <= range.second;
         });
}

bool IsSpace(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0xA0 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x3000;
}

std::vector<Words> Sentences(const Words& words) {
  std::string text;
  for (const std::string& word : words) text += word + " ";
  const std::string_view whole = text;
  std::vector<Words> sentences;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    Words sentence = SplitWords(whole.substr(begin, end - begin));
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
    begin = end + 1;
  }
  return sentences;
}

// Adds the words of the longest common subsequence that `rouge` picks: from the ends, and where
// either word may go, b's.
void AddCommon(const Words& a, const Words& b, std::set<std::string>* common) {
  const size_t columns = b.size() + 1;
  std::vector<int> longest((a.size() + 1) * columns);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      longest[i * columns + j] = a[i - 1] == b[j - 1] ? longest[(i - 1) * columns + j - 1] + 1
                                                      : std::max(longest[(i - 1) * columns + j],
                                                                 longest[i * columns + j - 1]);
    }
  }
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      common->insert(a[i - 1]);
      --i;
      --j;
    } else if (longest[(i - 1) * columns + j] > longest[i * columns + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
}

std::set<std::string> Distinct(const std::vector<Words>& sentences) {
  std::set<std::string> words;
  for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return words;
}

double F1(size_t common, size_t generated, size_t reference) {
  const double precision = static_cast<double>(common) / static_cast<double>(generated);
  const double recall = static_cast<double>(common) / static_cast<double>(reference);
  return 2 * precision * recall / (precision + recall + 1e-8);
}

void AddRouge(const Words& generated, const Words& reference, TextScores* sums) {
  const std::vector<Words> ours = Sentences(generated), theirs = Sentences(reference);
  if (ours.empty() || theirs.empty()) return;
  const std::set<std::string> a = Distinct(ours), b = Distinct(theirs);
  const auto both =
      std::count_if(a.begin(), a.end(), [&b](const auto& w) { return b.contains(w); });
  sums->rouge_1 += F1(static_cast<size_t>(both), a.size(), b.size());
  std::set<std::string> common;
  for (const Words& sentence : theirs) {
    for (const Words& other : ours) AddCommon(sentence, other, &common);
  }
  sums->rouge_l += F1(common.size(), a.size(), b.size());
}

// Sums over the corpus.
struct BleuCounts {
  std::array<double, 4> matches = {}, ngrams = {};
  double generated = 0, reference = 0;  // words
};

void Count(Words generated, Words reference, BleuCounts* counts) {
  for (Words* words : {&generated, &reference}) {
    if (words->empty()) words->push_back("");
  }
  for (size_t n = 1; n <= 4; ++n) {
    std::map<Words, std::pair<int, int>> seen;
    const auto add = [&](const Words& words, int std::pair<int, int>::*side) {
      for (size_t i = 0; i + n <= words.size(); ++i) {
        const auto begin = words.begin() + static_cast<ptrdiff_t>(i);
        ++(seen[Words(begin, begin + static_cast<ptrdiff_t>(n))].*side);
      }
    };
    add(generated, &std::pair<int, int>::first);
    add(reference, &std::pair<int, int>::second);
    for (const auto& [words, both] : seen) {
      counts->matches[n - 1] += std::min(both.first, both.second);
    }
    counts->ngrams[n - 1] +=
        generated.size() < n ? 1 : static_cast<double>(generated.size() - n + 1);
  }
  counts->generated += static_cast<double>(generated.size());
  counts->reference += static_cast<double>(reference.size());
}

double Bleu(const BleuCounts& counts, int orders) {
  if (counts.matches[0] == 0) return 0;
  double sum = 0, missing = 1;
  for (int n = 0; n < orders; ++n) {
    double matches = counts.matches[n];
    if (matches == 0) matches = missing /= 2;
    sum += std::log(matches / counts.ngrams[n]);
  }
  const double brevity = std::min(0.0, 1 - counts.reference / counts.generated);
  return std::exp(brevity + sum / orders);
}

}  // namespace

std::vector<std::string> SplitWords(std::string_view text) {
  Words words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  while (!text.empty()) {
    const Utf8Step step = NextUtf8(text);
    const bool character = step.kind == Utf8Step::Kind::kCharacter;
    const std::string_view bytes = text.substr(0, step.length);
    text.remove_prefix(step.length);
    if (character && IsSpace(step.code)) {
      end_word();
    } else if (character && IsWord(step.code)) {
      end_word();
      words.emplace_back(bytes);
    } else {
      word += bytes;
    }
  }
  end_word();
  return words;
}

TextScores ScoreTexts(std::span<const TextPair> pairs) {
  TextScores scores;
  if (pairs.empty()) return scores;
  BleuCounts counts;
  for (const TextPair& pair : pairs) {
    const Words generated = SplitWords(pair.generated), reference = SplitWords(pair.reference);
    AddRouge(generated, reference, &scores);
    Count(generated, reference, &counts);
  }
  scores.rouge_1 /= static_cast<double>(pairs.size());
  scores.rouge_l /= static_cast<double>(pairs.size());
  scores.bleu_1 = Bleu(counts, 1);
  scores.bleu_4 = Bleu(counts, 4);
  return scores;
}

}  // namespace hanlin
