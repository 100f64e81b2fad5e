// See wordpiece_tokenizer.h.
#include "tokenizer_svc/core/wordpiece/wordpiece_tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/status/status.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

constexpr std::string_view kInside = "##";
constexpr size_t kMaxWordCharacters = 100;  // Longer words are [UNK], as upstream has it.
constexpr size_t kMaxVocabulary = size_t{1} << 24;

// Lets string_view look up std::string keys.
struct Hash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocabulary = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

struct SpecialIds {
  int32_t unk, cls, sep;
};

class WordPieceTokenizer : public Tokenizer {
 public:
  WordPieceTokenizer(WordPieceOptions options, Vocabulary words, Vocabulary tails,
                     Vocabulary specials, SpecialIds ids, DecoderSpec spec)
      : options_(std::move(options)),
        words_(std::move(words)),
        tails_(std::move(tails)),
        specials_(std::move(specials)),
        ids_(ids),
        spec_(std::make_shared<const DecoderSpec>(std::move(spec))) {
    for (const auto* table : {&words_, &tails_}) {
      for (const auto& [piece, id] : *table) longest_ = std::max(longest_, piece.size());
    }
  }

  std::string_view kind() const override { return "wordpiece"; }
  std::shared_ptr<const DecoderSpec> decoder_spec() const override { return spec_; }

 protected:
  absl::StatusOr<Encoding> EncodeValid(std::string_view text, Use use) const override {
    Encoding out;
    Add(ids_.cls, 0, 0, &out);
    size_t begin = 0;
    for (size_t at = 0; use == Use::kWhole && at < text.size(); ++at) {
      const auto* special = SpecialAt(text.substr(at));
      if (special == nullptr) continue;
      EncodeText(text.substr(begin, at - begin), static_cast<uint32_t>(begin), &out);
      begin = at + special->first.size();
      Add(special->second, at, begin, &out);
      at = begin - 1;
    }
    EncodeText(text.substr(begin), static_cast<uint32_t>(begin), &out);
    if (use == Use::kWhole) Add(ids_.sep, text.size(), text.size(), &out);
    return out;
  }

 private:
  static void Add(int32_t id, size_t begin, size_t end, Encoding* out) {
    out->ids.push_back(id);
    out->offsets.emplace_back(static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
  }

  // The longest special token that `text` begins with.
  const Vocabulary::value_type* SpecialAt(std::string_view text) const {
    const Vocabulary::value_type* longest = nullptr;
    for (const auto& special : specials_) {
      if (!text.starts_with(special.first)) continue;
      if (longest == nullptr || special.first.size() > longest->first.size()) longest = &special;
    }
    return longest;
  }

  void EncodeText(std::string_view text, uint32_t base, Encoding* out) const {
    std::vector<BertWord> words;
    SplitBertWords(text, base, options_.text, &words);
    for (const BertWord& word : words) EncodeWord(word, out);
  }

  void EncodeWord(const BertWord& word, Encoding* out) const {
    const auto& characters = word.characters;
    const size_t before = out->ids.size();
    size_t first = 0;
    while (first < characters.size() && characters.size() <= kMaxWordCharacters) {
      const auto [id, last] = LongestPiece(word, first);
      if (id < 0) break;
      Add(id, characters[first].begin, characters[last - 1].end, out);
      first = last;
    }
    if (first == characters.size()) return;
    out->ids.resize(before);
    out->offsets.resize(before);
    Add(ids_.unk, characters.front().begin, characters.back().end, out);
  }

  // The longest piece from character `first` on, and the character behind it; id -1 when there is
  // none.
  std::pair<int32_t, size_t> LongestPiece(const BertWord& word, size_t first) const {
    const Vocabulary& table = first == 0 ? words_ : tails_;
    const std::string_view text = word.text;
    const uint32_t begin = word.characters[first].at;
    for (size_t last = word.characters.size(); last > first; --last) {
      const size_t end = last < word.characters.size() ? word.characters[last].at : text.size();
      if (end - begin > longest_) continue;
      const auto found = table.find(text.substr(begin, end - begin));
      if (found != table.end()) return {found->second, last};
    }
    return {-1, first};
  }

  const WordPieceOptions options_;
  const Vocabulary words_;     // Pieces that begin a word.
  const Vocabulary tails_;     // Pieces inside a word, without their "##".
  const Vocabulary specials_;  // Recognised in the text itself.
  const SpecialIds ids_;
  const std::shared_ptr<const DecoderSpec> spec_;
  size_t longest_ = 0;  // Bytes of the longest piece.
};

absl::StatusOr<std::vector<std::string_view>> Lines(std::string_view vocab) {
  std::vector<std::string_view> lines;
  while (!vocab.empty()) {
    const size_t end = std::min(vocab.find('\n'), vocab.size());
    std::string_view line = vocab.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (ValidUtf8Prefix(line) != line.size()) {
      return InvalidArgument("vocab.txt: line {} is not UTF-8", lines.size() + 1);
    }
    lines.push_back(line);
    if (lines.size() > kMaxVocabulary) {
      return InvalidArgument("vocab.txt: more than {} lines", kMaxVocabulary);
    }
    vocab.remove_prefix(std::min(end + 1, vocab.size()));
  }
  return lines;
}

DecoderSpec MakeSpec(const std::vector<std::string_view>& lines, const Vocabulary& specials,
                     const WordPieceOptions& options) {
  DecoderSpec spec;
  spec.kind = DecoderSpec::Kind::kText;
  spec.start_rule = DecoderSpec::StartRule::kFirstPiece;
  spec.clean_up_spaces = options.clean_up_spaces;
  spec.join_chinese = options.join_chinese;
  for (const std::string_view line : lines) {
    const bool inside = line.starts_with(kInside);
    spec.pieces.push_back(inside ? std::string(line.substr(kInside.size()))
                                 : std::string(" ").append(line));
    spec.start_pieces.emplace_back(line);  // The first token keeps its "##", as upstream has it.
    spec.attributes.push_back(specials.contains(line) ? DecoderSpec::kSpecial : 0);
  }
  return spec;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeWordPieceTokenizer(std::string_view vocab,
                                                                  const WordPieceOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<std::string_view> lines, Lines(vocab));
  Vocabulary all, words, tails;
  for (size_t id = 0; id < lines.size(); ++id) {
    const std::string_view line = lines[id];
    all[std::string(line)] = static_cast<int32_t>(id);  // Of equal lines the last one counts.
    words[std::string(line)] = static_cast<int32_t>(id);
    if (line.starts_with(kInside)) {
      tails[std::string(line.substr(kInside.size()))] = static_cast<int32_t>(id);
    }
  }
  const auto id_of = [&all](const std::string& token) -> absl::StatusOr<int32_t> {
    const auto found = all.find(token);
    if (found != all.end()) return found->second;
    return InvalidArgument("vocab.txt: {} tokens, but not {}, want it in the list", all.size(),
                           token);
  };
  SpecialIds ids;
  ASSIGN_OR_RETURN(ids.unk, id_of(options.unk_token));
  ASSIGN_OR_RETURN(ids.cls, id_of(options.cls_token));
  ASSIGN_OR_RETURN(ids.sep, id_of(options.sep_token));
  Vocabulary specials;
  for (const std::string* token : {&options.unk_token, &options.cls_token, &options.sep_token,
                                   &options.pad_token, &options.mask_token}) {
    if (!token->empty() && all.contains(*token)) specials[*token] = all[*token];
  }
  DecoderSpec spec = MakeSpec(lines, specials, options);
  RETURN_IF_ERROR(spec.Validate());
  return std::make_unique<WordPieceTokenizer>(options, std::move(words), std::move(tails),
                                              std::move(specials), ids, std::move(spec));
}

}  // namespace hanlin
