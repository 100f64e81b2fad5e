// See block_cutter.h. Sums are formed in the order in which Python jieba forms them and ties are
// broken as its max() over tuples breaks them, so that every comparison has the same outcome.
#include "tokenizer_svc/core/jieba/block_cutter.h"

#include <algorithm>
#include <array>

namespace hanlin {
namespace {

constexpr uint16_t kAsciiCodes = kHanEnd - kHanBegin;  // Code of 'a'.
constexpr uint16_t kNoCode = 0xFFFF;
constexpr uint16_t kLetterOrDigitEnd = kAsciiCodes + 62;

// The code of every ASCII character that may stand in a block.
constexpr std::array<uint16_t, 128> MakeAsciiTable() {
  std::array<uint16_t, 128> table{};
  for (auto& code : table) code = kNoCode;
  constexpr std::string_view kAlphabet =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+#&._%-";
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint16_t>(kAsciiCodes + i);
  }
  return table;
}
constexpr std::array<uint16_t, 128> kAscii = MakeAsciiTable();
constexpr uint16_t kDot = kAscii['.'];
constexpr uint16_t kPercent = kAscii['%'];

bool IsHan(uint16_t code) { return code < kAsciiCodes; }
bool IsLetterOrDigit(uint16_t code) { return code >= kAsciiCodes && code < kLetterOrDigitEnd; }
bool IsDigit(uint16_t code) { return code >= kAscii['0'] && code < kLetterOrDigitEnd; }

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

enum State { kB, kE, kM, kS };  // In alphabetical order: ties go to the larger letter.

// The two states that may come before a state, the larger letter first.
constexpr State kBefore[Jieba::kStates][2] = {{kS, kE}, {kM, kB}, {kM, kB}, {kS, kE}};

}  // namespace

size_t CharacterLength(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  const size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size() || !IsContinuation(text[at + i])) return 1;
  }
  return length;
}

size_t BlockCutter::ReadBlock(size_t at) {
  codes_.clear();
  offsets_.clear();
  const size_t size = text_.size();
  while (at < size) {
    const auto lead = static_cast<uint8_t>(text_[at]);
    if (lead < 0x80) {
      if (kAscii[lead] == kNoCode) break;
      codes_.push_back(kAscii[lead]);
      offsets_.push_back(static_cast<uint32_t>(at++));
      continue;
    }
    // U+4E00…U+9FD5 are the three-byte characters from E4 B8 80 to E9 BF 95.
    if (lead < 0xE4 || lead > 0xE9 || at + 2 >= size) break;
    if (!IsContinuation(text_[at + 1]) || !IsContinuation(text_[at + 2])) break;
    const uint32_t character = (lead & 0x0Fu) << 12 |
                               (static_cast<uint8_t>(text_[at + 1]) & 0x3Fu) << 6 |
                               (static_cast<uint8_t>(text_[at + 2]) & 0x3Fu);
    if (character < kHanBegin || character >= kHanEnd) break;
    codes_.push_back(static_cast<uint16_t>(character - kHanBegin));
    offsets_.push_back(static_cast<uint32_t>(at));
    at += 3;
  }
  offsets_.push_back(static_cast<uint32_t>(at));
  return at;
}

void BlockCutter::FindPath() {
  const size_t n = codes_.size();
  path_score_.resize(n + 1);
  path_end_.resize(n);
  path_score_[n] = 0;
  const Jieba::Node* nodes = jieba_.nodes_;
  for (size_t begin = n; begin-- > 0;) {
    double best = 0;
    size_t best_end = 0;  // None yet.
    uint32_t at = 0;
    const size_t limit = std::min<size_t>(n, begin + jieba_.longest_word_);
    for (size_t end = begin; end < limit;) {
      const uint32_t next = static_cast<uint32_t>(nodes[at].base) + codes_[end++];
      if (next >= jieba_.slots_ || nodes[next].check != at) break;
      at = next;
      if (nodes[at].weight > 0) continue;  // A mere prefix.
      const double score = nodes[at].weight + path_score_[end];
      if (best_end == 0 || score >= best) {
        best = score;
        best_end = end;
      }
    }
    if (best_end == 0) {
      best = jieba_.unknown_weight_ + path_score_[begin + 1];
      best_end = begin + 1;
    }
    path_score_[begin] = best;
    path_end_[begin] = static_cast<uint32_t>(best_end);
  }
}

void BlockCutter::CutBlock() {
  FindPath();
  const size_t n = codes_.size();
  size_t run = 0;  // Start of the run of one-character words that reaches up to `at`.
  for (size_t at = 0; at < n;) {
    const size_t end = path_end_[at];
    if (end - at > 1) {
      CutRun(run, at);
      Emit(at, end);
      run = end;
    }
    at = end;
  }
  CutRun(run, n);
}

bool BlockCutter::IsWord(size_t begin, size_t end) const {
  if (end - begin > jieba_.longest_word_) return false;
  uint32_t at = 0;
  for (size_t i = begin; i < end; ++i) {
    const uint32_t next = static_cast<uint32_t>(jieba_.nodes_[at].base) + codes_[i];
    if (next >= jieba_.slots_ || jieba_.nodes_[next].check != at) return false;
    at = next;
  }
  return jieba_.nodes_[at].weight <= 0;
}

void BlockCutter::CutRun(size_t begin, size_t end) {
  if (begin == end) return;
  if (end - begin == 1) return Emit(begin, end);
  if (IsWord(begin, end)) {  // A word that the path deliberately took apart.
    for (size_t i = begin; i < end; ++i) Emit(i, i + 1);
    return;
  }
  for (size_t at = begin; at < end;) {
    const bool han = IsHan(codes_[at]);
    size_t stop = at + 1;
    while (stop < end && IsHan(codes_[stop]) == han) ++stop;
    if (han) {
      CutHan(at, stop);
    } else {
      CutAlphanumeric(at, stop);
    }
    at = stop;
  }
}

void BlockCutter::CutHan(size_t begin, size_t end) {
  const Jieba::Hmm& hmm = *jieba_.hmm_;
  const size_t n = end - begin;
  previous_.resize(n);
  double score[Jieba::kStates];
  for (int s = 0; s < Jieba::kStates; ++s) score[s] = hmm.start[s] + hmm.emit[codes_[begin]][s];
  for (size_t t = 1; t < n; ++t) {
    const double* emit = hmm.emit[codes_[begin + t]];
    double next[Jieba::kStates];
    unsigned before = 0;
    for (int s = 0; s < Jieba::kStates; ++s) {
      const State larger = kBefore[s][0], smaller = kBefore[s][1];
      const double from_larger = score[larger] + hmm.trans[larger][s] + emit[s];
      const double from_smaller = score[smaller] + hmm.trans[smaller][s] + emit[s];
      const bool take_larger = from_larger >= from_smaller;
      next[s] = take_larger ? from_larger : from_smaller;
      before |= static_cast<unsigned>(take_larger ? larger : smaller) << (2 * s);
    }
    previous_[t] = static_cast<uint8_t>(before);
    std::copy(next, next + Jieba::kStates, score);
  }
  // Backwards along the best path, which is noted in place of the pointers.
  int state = score[kS] >= score[kE] ? kS : kE;
  for (size_t t = n; t-- > 0;) {
    const int before = previous_[t] >> (2 * state) & 3;
    previous_[t] = static_cast<uint8_t>(state);
    state = before;
  }
  size_t word = begin;
  for (size_t t = 0; t < n; ++t) {
    if (previous_[t] == kB || previous_[t] == kS) word = begin + t;
    if (previous_[t] == kS || previous_[t] == kE) Emit(word, begin + t + 1);
  }
}

// Words [a-zA-Z0-9]+(\.[0-9]+)?%? and whatever stands between them.
void BlockCutter::CutAlphanumeric(size_t begin, size_t end) {
  for (size_t at = begin; at < end;) {
    size_t stop = at;
    if (!IsLetterOrDigit(codes_[at])) {
      while (stop < end && !IsLetterOrDigit(codes_[stop])) ++stop;
      Emit(at, stop);
      at = stop;
      continue;
    }
    while (stop < end && IsLetterOrDigit(codes_[stop])) ++stop;
    if (stop + 1 < end && codes_[stop] == kDot && IsDigit(codes_[stop + 1])) {
      ++stop;
      while (stop < end && IsDigit(codes_[stop])) ++stop;
    }
    if (stop < end && codes_[stop] == kPercent) ++stop;
    Emit(at, stop);
    at = stop;
  }
}

}  // namespace hanlin
