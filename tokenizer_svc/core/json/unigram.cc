// The Unigram language model: the most probable division of a word into pieces, by Viterbi over all
// pieces that match (ties keep the division found first, as Hugging Face's tokenizers do). A
// character that no piece of its own covers costs ten nats more than the worst piece; neighbours of
// that kind become one unknown piece, or bytes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/byte_trie.h"
#include "tokenizer_svc/core/json/model.h"

namespace hanlin {
namespace {

constexpr double kUnknownPenalty = 10;

class Unigram : public Model {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, int32_t unknown_id, bool byte_fallback)
      : vocabulary_(std::move(vocabulary)),
        scores_(std::move(scores)),
        unknown_id_(unknown_id),
        byte_fallback_(byte_fallback),
        byte_ids_(vocabulary_.ByteIds()) {
    std::vector<std::pair<std::string_view, int32_t>> entries;
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      if (!vocabulary_.piece(id).empty()) entries.emplace_back(vocabulary_.piece(id), id);
      unknown_score_ = std::min(unknown_score_, scores_[id]);
    }
    unknown_score_ -= kUnknownPenalty;
    trie_ = ByteTrie::Build(std::move(entries));
  }

  std::string_view kind() const override { return "unigram"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  absl::Status Tokenize(std::string_view word, std::vector<PieceToken>* pieces) const override {
    std::vector<PieceToken> path;
    RETURN_IF_ERROR(FindPath(word, &path));
    for (size_t i = 0; i < path.size();) {
      // Neighbouring unknown pieces are one.
      PieceToken piece = path[i++];
      const bool unknown = piece.id == unknown_id_;
      while (unknown && i < path.size() && path[i].id == unknown_id_) piece.end = path[i++].end;
      if (unknown) {
        AppendUnknown(word, piece, pieces);
      } else {
        pieces->push_back(piece);
      }
    }
    return absl::OkStatus();
  }

 private:
  struct Best {
    double score = 0;
    int32_t begin = -1;  // Of the last piece of the best path to here; -1: no path yet.
    int32_t id = 0;
    void Offer(double candidate, size_t from, int32_t piece) {
      if (begin >= 0 && candidate <= score) return;
      *this = {candidate, static_cast<int32_t>(from), piece};
    }
  };

  absl::Status FindPath(std::string_view word, std::vector<PieceToken>* path) const {
    std::vector<Best> best(word.size() + 1);  // [word.size() + 1] by end of the path
    for (size_t begin = 0; begin < word.size();) {
      const size_t length = Utf8Length(word[begin]);
      const double score = best[begin].score;
      bool covered = false;  // By a piece that is this one character.
      uint32_t node = ByteTrie::kRoot;
      for (size_t end = begin; end < word.size() && trie_.Step(word[end], &node);) {
        ++end;
        const int32_t id = trie_.value(node);
        if (id < 0) continue;
        best[end].Offer(scores_[id] + score, begin, id);
        covered |= end - begin == length;
      }
      if (!covered) {
        if (unknown_id_ == Vocabulary::kNone) {
          return InvalidArgument("\"{}\" is in no piece and the tokenizer has no unk_id",
                                 word.substr(begin, length));
        }
        best[begin + length].Offer(unknown_score_ + score, begin, unknown_id_);
      }
      begin += length;
    }
    for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
      const auto begin = static_cast<uint32_t>(best[end].begin);
      path->push_back({best[end].id, begin, end});
      end = begin;
    }
    std::reverse(path->begin(), path->end());
    return absl::OkStatus();
  }

  void AppendUnknown(std::string_view word, PieceToken piece,
                     std::vector<PieceToken>* pieces) const {
    const std::string_view text = word.substr(piece.begin, piece.end - piece.begin);
    if (const int32_t id = vocabulary_.Find(text); id != Vocabulary::kNone) {
      piece.id = id;  // What unknown neighbours spell together may be a piece after all.
    } else if (byte_fallback_ && AllBytesHavePieces(text)) {
      for (const char byte : text) {
        pieces->push_back({byte_ids_[static_cast<uint8_t>(byte)], piece.begin, piece.end});
      }
      return;
    }
    pieces->push_back(piece);
  }

  bool AllBytesHavePieces(std::string_view text) const {
    return std::all_of(text.begin(), text.end(), [&](char byte) {
      return byte_ids_[static_cast<uint8_t>(byte)] != Vocabulary::kNone;
    });
  }

  Vocabulary vocabulary_;
  std::vector<double> scores_;  // By id.
  int32_t unknown_id_;
  bool byte_fallback_;
  std::array<int32_t, 256> byte_ids_;
  double unknown_score_ = std::numeric_limits<double>::infinity();
  ByteTrie trie_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> ParseUnigram(const Fields& fields) {
  ASSIGN_OR_RETURN(const Json* list, fields.Array("vocab"));
  ASSIGN_OR_RETURN(const int32_t unknown_id, fields.IntOr("unk_id", Vocabulary::kNone));
  ASSIGN_OR_RETURN(const bool byte_fallback, fields.BoolOr("byte_fallback", false));
  std::vector<std::pair<std::string, int32_t>> entries;
  std::vector<double> scores;
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& entry = (*list)[i];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return InvalidArgument("{} is {}, want a piece and its score", fields.Path("vocab", i),
                             entry.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    const double score = entry[1].get<double>();
    if (!std::isfinite(score)) {
      return InvalidArgument("{}: score {}, want a finite number", fields.Path("vocab", i), score);
    }
    entries.emplace_back(entry[0].get<std::string>(), static_cast<int32_t>(i));
    scores.push_back(score);
  }
  if (unknown_id >= static_cast<int32_t>(entries.size())) {
    return InvalidArgument("{}: unk_id is {}, want less than {} pieces", fields.where(), unknown_id,
                           entries.size());
  }
  auto vocabulary = Vocabulary::Create(entries);
  if (!vocabulary.ok()) return Annotate(vocabulary.status(), fields.Path("vocab"));
  return std::make_unique<Unigram>(*std::move(vocabulary), std::move(scores), unknown_id,
                                   byte_fallback);
}

}  // namespace hanlin
