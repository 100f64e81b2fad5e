// Chinese word segmentation, segment for segment what Python's jieba.cut(text) gives with all
// defaults (dictionary of 349,046 words, HMM on; jieba 0.42.1).
//
// A text is a sequence of blocks, maximal runs of [\u4E00-\u9FD5a-zA-Z0-9+#&._%-], and of other
// characters, which are one segment each ("\r\n" stays together). A block is cut along the most
// probable path through the dictionary; runs of one-character words on that path are handed to the
// HMM (hmm.h). Nothing is dropped: the segments join to the text.
//
// The dictionary and the HMM come from one file, built by compile_table.py and mapped read-only.
// Layout, little-endian:
//   0   char[8]  "HLJIEBA1"
//   8   u32      slots: number of trie slots
//   12  u32      longest word in characters
//   16  u32      number of Han characters, 0x9FD6 - 0x4E00 = 20950
//   24  f64      weight of a one-character word that the dictionary lacks
//   32  slots × {i32 base, u32 check, f64 weight}: a double-array trie over character codes, the
//   root in slot 0.
//       The child of slot p by code c is slot base[p] + c, and exists iff its check is p. weight is
//       log(freq) - log(total), or 1 where no word ends (a mere prefix).
//   …   f64 start[4], trans[4][4] (from, to), emit[20950][4]: the HMM, states in the order B E M S
// Character codes: Han character c is c - 0x4E00; then a-z, A-Z, 0-9, "+#&._%-" from 20950 on.
//
// Thread-safe: immutable once opened.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JIEBA_JIEBA_H_
#define HANLIN_TOKENIZER_SVC_CORE_JIEBA_JIEBA_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/io/file.h"

namespace hanlin {

class Jieba {
 public:
  // Maps and checks the table at `path`. NOT_FOUND; DATA_LOSS: not such a table, truncated or
  // damaged.
  static absl::StatusOr<std::shared_ptr<const Jieba>> Open(const std::string& path);

  // Appends the segments of `text` (views into it) to *segments. `text` should be UTF-8; a byte
  // that is not is a segment of its own.
  void Cut(std::string_view text, std::vector<std::string_view>* segments) const;

  // sha256 of the table, part of a tokenizer's fingerprint.
  const std::string& sha256() const { return sha256_; }

  struct Node {
    int32_t base;
    uint32_t check;
    double weight;
  };
  static constexpr int kStates = 4;
  struct Hmm {
    double start[kStates];
    double trans[kStates][kStates];  // [from][to]
    double emit[20950][kStates];     // [character - 0x4E00]
  };

 private:
  friend class BlockCutter;
  explicit Jieba(std::shared_ptr<MappedFile> file) : file_(std::move(file)) {}

  std::shared_ptr<MappedFile> file_;
  const Node* nodes_ = nullptr;  // [slots_]
  uint32_t slots_ = 0;
  uint32_t longest_word_ = 0;
  double unknown_weight_ = 0;
  const Hmm* hmm_ = nullptr;
  std::string sha256_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JIEBA_JIEBA_H_
