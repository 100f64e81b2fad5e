// WordPiece: the longest piece that a word begins with, then the longest "##piece" that the rest
// begins with, and so on; a word that cannot be divided this way, or is too long, is the unknown
// piece as a whole.
#include <algorithm>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/byte_trie.h"
#include "tokenizer_svc/core/json/model.h"

namespace hanlin {
namespace {

class WordPiece : public Model {
 public:
  WordPiece(Vocabulary vocabulary, int32_t unknown_id, const std::string& prefix,
            int32_t max_characters)
      : vocabulary_(std::move(vocabulary)),
        unknown_id_(unknown_id),
        max_characters_(max_characters) {
    std::vector<std::pair<std::string_view, int32_t>> first, following;
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string_view piece = vocabulary_.piece(id);
      if (piece.empty()) continue;
      first.emplace_back(piece, id);
      if (piece.starts_with(prefix) && piece.size() > prefix.size()) {
        following.emplace_back(piece.substr(prefix.size()), id);
      }
    }
    first_ = ByteTrie::Build(std::move(first));
    following_ = ByteTrie::Build(std::move(following));
  }

  std::string_view kind() const override { return "wordpiece"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  absl::Status Tokenize(std::string_view word, std::vector<PieceToken>* pieces) const override {
    const size_t before = pieces->size();
    const auto size = static_cast<uint32_t>(word.size());
    const auto characters = std::count_if(word.begin(), word.end(), [](char byte) {
      return (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
    });
    bool divided = characters <= max_characters_;
    for (uint32_t begin = 0; divided && begin < size;) {
      const PieceToken piece = Longest(word, begin);
      divided = piece.id != Vocabulary::kNone;
      pieces->push_back(piece);
      begin = piece.end;
    }
    if (!divided) {
      pieces->resize(before);
      pieces->push_back({unknown_id_, 0, size});
    }
    return absl::OkStatus();
  }

 private:
  PieceToken Longest(std::string_view word, uint32_t begin) const {
    const ByteTrie& trie = begin == 0 ? first_ : following_;
    PieceToken longest{Vocabulary::kNone, begin, begin};
    uint32_t node = ByteTrie::kRoot;
    for (uint32_t end = begin; end < word.size() && trie.Step(word[end], &node);) {
      ++end;
      if (trie.value(node) >= 0) longest = {trie.value(node), begin, end};
    }
    return longest;
  }

  Vocabulary vocabulary_;
  int32_t unknown_id_;
  int32_t max_characters_;
  ByteTrie first_;      // Pieces as they are.
  ByteTrie following_;  // Pieces with the prefix, without it.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> ParseWordPiece(const Fields& fields) {
  ASSIGN_OR_RETURN(const std::string unknown, fields.StringOr("unk_token", "[UNK]"));
  ASSIGN_OR_RETURN(const std::string prefix, fields.StringOr("continuing_subword_prefix", "##"));
  ASSIGN_OR_RETURN(const int32_t max_characters, fields.IntOr("max_input_chars_per_word", 100));
  ASSIGN_OR_RETURN(Vocabulary vocabulary, ParseVocabulary(fields, "vocab"));
  const int32_t unknown_id = vocabulary.Find(unknown);
  if (unknown_id == Vocabulary::kNone) {
    return InvalidArgument("{}: unk_token \"{}\" is not in the vocabulary", fields.where(),
                           unknown);
  }
  return std::make_unique<WordPiece>(std::move(vocabulary), unknown_id, prefix, max_characters);
}

}  // namespace hanlin
