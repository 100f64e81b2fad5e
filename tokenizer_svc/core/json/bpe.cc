// Byte-pair encoding as Hugging Face's tokenizers do it: a word starts as its characters (a
// character without a piece as bytes or as the unknown piece) and the pair of neighbours whose
// merge comes first in the list is joined, leftmost first, until none is left. A heap of candidates
// keeps long words at n log n; entries go stale and are checked when they come up.
#include <algorithm>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/model.h"

namespace hanlin {
namespace {

struct MergeRule {
  int32_t rank;
  int32_t merged;  // Id of the joined piece.
};
using MergeMap = absl::flat_hash_map<uint64_t, MergeRule>;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Options {
  std::string unknown;  // Empty: none.
  std::string prefix;   // Of a character that does not begin the word.
  std::string suffix;   // Of the character that ends the word.
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

struct Symbol {
  int32_t id;
  uint32_t begin, end;     // Bytes of the word; empty once joined to its left neighbour.
  int32_t previous, next;  // Neighbours, -1 at the ends.
};

struct Candidate {
  int32_t rank;
  int32_t position;  // Of the left symbol.
  int32_t merged;
  // For a heap whose top is the lowest rank, leftmost.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

// The symbols of one word; kept per thread, so that short words cost no allocation.
class Word {
 public:
  void Clear() {
    constexpr size_t kMaxKept = size_t{1} << 16;  // What a huge word needed is given back.
    if (symbols_.capacity() > kMaxKept) *this = Word();
    symbols_.clear();
  }

  void Add(int32_t id, uint32_t begin, uint32_t end) {
    const auto index = static_cast<int32_t>(symbols_.size());
    if (index > 0) symbols_.back().next = index;
    symbols_.push_back({id, begin, end, index - 1, -1});
  }

  void MergeAll(const MergeMap& merges) {
    heap_.clear();
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) Consider(merges, static_cast<int32_t>(i));
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate top = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols_[top.position];
      if (left.begin == left.end || left.next < 0) continue;
      Symbol& right = symbols_[left.next];
      const auto rule = merges.find(PairKey(left.id, right.id));
      if (rule == merges.end() || rule->second.merged != top.merged) continue;
      left.id = top.merged;
      left.end = right.end;
      left.next = right.next;
      right.begin = right.end;
      if (left.next >= 0) symbols_[left.next].previous = top.position;
      if (left.previous >= 0) Consider(merges, left.previous);
      Consider(merges, top.position);
    }
  }

  void Append(std::vector<PieceToken>* pieces) const {
    for (const Symbol& symbol : symbols_) {
      if (symbol.begin < symbol.end) pieces->push_back({symbol.id, symbol.begin, symbol.end});
    }
  }

 private:
  // Notes the merge of the symbol at `position` with its right neighbour, if there is one.
  void Consider(const MergeMap& merges, int32_t position) {
    const Symbol& left = symbols_[position];
    if (left.next < 0) return;
    const auto rule = merges.find(PairKey(left.id, symbols_[left.next].id));
    if (rule == merges.end()) return;
    heap_.push_back({rule->second.rank, position, rule->second.merged});
    std::push_heap(heap_.begin(), heap_.end());
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class Bpe : public Model {
 public:
  Bpe(Vocabulary vocabulary, MergeMap merges, Options options)
      : vocabulary_(std::move(vocabulary)),
        merges_(std::move(merges)),
        options_(std::move(options)),
        unknown_id_(options_.unknown.empty() ? Vocabulary::kNone
                                             : vocabulary_.Find(options_.unknown)),
        byte_ids_(vocabulary_.ByteIds()) {}

  std::string_view kind() const override { return "bpe"; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  absl::Status Tokenize(std::string_view text, std::vector<PieceToken>* pieces) const override {
    if (options_.ignore_merges) {
      if (const int32_t id = vocabulary_.Find(text); id != Vocabulary::kNone) {
        pieces->push_back({id, 0, static_cast<uint32_t>(text.size())});
        return absl::OkStatus();
      }
    }
    thread_local Word word;
    word.Clear();
    AddCharacters(text, &word);
    word.MergeAll(merges_);
    word.Append(pieces);
    return absl::OkStatus();
  }

 private:
  void AddCharacters(std::string_view text, Word* word) const {
    // Not added yet: the next unknown character may be fused to it. Without id: there is none.
    PieceToken unknown{Vocabulary::kNone, 0, 0};
    const auto flush_unknown = [&] {
      if (unknown.id != Vocabulary::kNone) word->Add(unknown.id, unknown.begin, unknown.end);
      unknown.id = Vocabulary::kNone;
    };
    std::string decorated;
    for (size_t at = 0; at < text.size();) {
      const auto begin = static_cast<uint32_t>(at);
      const auto end = static_cast<uint32_t>(at + Utf8Length(text[at]));
      std::string_view piece = text.substr(begin, end - begin);
      const bool prefixed = begin > 0 && !options_.prefix.empty();
      const bool suffixed = end == text.size() && !options_.suffix.empty();
      if (prefixed || suffixed) {
        decorated = prefixed ? options_.prefix : "";
        decorated += piece;
        if (suffixed) decorated += options_.suffix;
        piece = decorated;
      }
      at = end;
      if (const int32_t id = vocabulary_.Find(piece); id != Vocabulary::kNone) {
        flush_unknown();
        word->Add(id, begin, end);
      } else if (!(options_.byte_fallback && AddBytes(piece, begin, end, word)) &&
                 unknown_id_ != Vocabulary::kNone) {
        if (unknown.id != Vocabulary::kNone && options_.fuse_unknown) {
          unknown.end = end;
          continue;
        }
        flush_unknown();
        unknown = {unknown_id_, begin, end};
      }
    }
    flush_unknown();
  }

  // The byte pieces of `piece`, which stands for bytes [begin, end); false when one of them is
  // missing.
  bool AddBytes(std::string_view piece, uint32_t begin, uint32_t end, Word* word) const {
    const auto id_of = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
    for (const char byte : piece) {
      if (id_of(byte) == Vocabulary::kNone) return false;
    }
    for (uint32_t i = 0; i < piece.size(); ++i) {
      const uint32_t at = std::min(begin + i, end - 1);  // A suffix has bytes beyond the character.
      word->Add(id_of(piece[i]), at, at + 1);
    }
    return true;
  }

  Vocabulary vocabulary_;
  MergeMap merges_;
  Options options_;
  int32_t unknown_id_;
  std::array<int32_t, 256> byte_ids_;
};

// "a b" (files of old) or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ParsePair(const Json& json,
                                                              const std::string& where) {
  if (json.is_string()) {
    const auto& line = json.get_ref<const std::string&>();
    const size_t space = line.find(' ');
    if (space != line.npos && line.find(' ', space + 1) == line.npos) {
      return std::make_pair(line.substr(0, space), line.substr(space + 1));
    }
  } else if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return std::make_pair(json[0].get<std::string>(), json[1].get<std::string>());
  }
  return InvalidArgument("{} is {}, want two pieces", where,
                         json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

absl::StatusOr<MergeMap> ParseMerges(const Fields& fields, const Vocabulary& vocabulary,
                                     const std::string& prefix) {
  ASSIGN_OR_RETURN(const Json* list, fields.Array("merges"));
  MergeMap merges;
  merges.reserve(list->size());
  int32_t rank = 0;
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& json = (*list)[i];
    if (json.is_string() && json.get_ref<const std::string&>().starts_with("#version")) continue;
    ASSIGN_OR_RETURN(const auto pair, ParsePair(json, fields.Path("merges", i)));
    const auto& [left, right] = pair;
    if (!prefix.empty() && !right.starts_with(prefix)) {
      return InvalidArgument("{}: the right piece of \"{} {}\" lacks the prefix \"{}\"",
                             fields.Path("merges", i), left, right, prefix);
    }
    const std::string merged = left + right.substr(prefix.size());
    for (const std::string* piece : {&left, &right, &merged}) {
      if (vocabulary.Find(*piece) == Vocabulary::kNone) {
        return InvalidArgument(
            "{}: merge \"{} {}\" needs piece \"{}\", which is not in the vocabulary",
            fields.Path("merges", i), left, right, *piece);
      }
    }
    const uint64_t key = PairKey(vocabulary.Find(left), vocabulary.Find(right));
    merges[key] = {rank++, vocabulary.Find(merged)};
  }
  return merges;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> ParseBpe(const Fields& fields) {
  if (const Json* dropout = fields.Find("dropout"); dropout != nullptr && *dropout != 0) {
    return InvalidArgument("{}: dropout is {}, want none: encoding must not be random",
                           fields.where(),
                           dropout->dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  Options options;
  ASSIGN_OR_RETURN(options.unknown, fields.StringOr("unk_token", ""));
  ASSIGN_OR_RETURN(options.prefix, fields.StringOr("continuing_subword_prefix", ""));
  ASSIGN_OR_RETURN(options.suffix, fields.StringOr("end_of_word_suffix", ""));
  ASSIGN_OR_RETURN(options.fuse_unknown, fields.BoolOr("fuse_unk", false));
  ASSIGN_OR_RETURN(options.byte_fallback, fields.BoolOr("byte_fallback", false));
  ASSIGN_OR_RETURN(options.ignore_merges, fields.BoolOr("ignore_merges", false));
  ASSIGN_OR_RETURN(Vocabulary vocabulary, ParseVocabulary(fields, "vocab"));
  if (!options.unknown.empty() && vocabulary.Find(options.unknown) == Vocabulary::kNone) {
    return InvalidArgument("{}: unk_token \"{}\" is not in the vocabulary", fields.where(),
                           options.unknown);
  }
  ASSIGN_OR_RETURN(MergeMap merges, ParseMerges(fields, vocabulary, options.prefix));
  return std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), std::move(options));
}

}  // namespace hanlin
