// Cuts one block of jieba's alphabet (jieba.h) into words: dictionary path, then the HMM for runs
// of one-character words. Works on character codes with scratch arrays that live for one text. Not
// thread-safe.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JIEBA_BLOCK_CUTTER_H_
#define HANLIN_TOKENIZER_SVC_CORE_JIEBA_BLOCK_CUTTER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer_svc/core/jieba/jieba.h"

namespace hanlin {

inline constexpr uint32_t kHanBegin = 0x4E00;
inline constexpr uint32_t kHanEnd = 0x9FD6;

// Bytes of the UTF-8 character of `text` at `at`, never past the end; 1 for a byte that begins
// none.
size_t CharacterLength(std::string_view text, size_t at);

class BlockCutter {
 public:
  // Segments are appended to *segments as views into `text`.
  BlockCutter(const Jieba& jieba, std::string_view text, std::vector<std::string_view>* segments)
      : jieba_(jieba), text_(text), segments_(segments) {}

  // Takes the longest block that starts at byte `at`; returns its end, `at` when none starts there.
  size_t ReadBlock(size_t at);

  // Emits the words of the block just read.
  void CutBlock();

 private:
  void FindPath();  // Fills path_end_.
  bool IsWord(size_t begin, size_t end) const;
  void CutRun(size_t begin, size_t end);  // Characters that the dictionary leaves single.
  void CutHan(size_t begin, size_t end);  // The HMM.
  void CutAlphanumeric(size_t begin, size_t end);
  // Emits characters [begin, end) of the block as one segment.
  void Emit(size_t begin, size_t end) {
    segments_->push_back(text_.substr(offsets_[begin], offsets_[end] - offsets_[begin]));
  }

  const Jieba& jieba_;
  std::string_view text_;
  std::vector<std::string_view>* segments_;
  std::vector<uint16_t> codes_;     // [n] characters of the block
  std::vector<uint32_t> offsets_;   // [n + 1] their byte offsets in text_
  std::vector<double> path_score_;  // [n + 1] best score from here to the end
  std::vector<uint32_t> path_end_;  // [n] end of the word that begins here on that path
  std::vector<uint8_t> previous_;  // [n] HMM: two bits per state, the state before on the best path
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JIEBA_BLOCK_CUTTER_H_
