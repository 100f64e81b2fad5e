// See pre_tokenizer.h. A text is first divided into parts that are a delimiter or not, in turn; a
// behaviour then says which parts become words.
#include "tokenizer_svc/core/json/pre_tokenizer.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/characters.h"
#include "tokenizer_svc/core/json/normalizer.h"
#include "tokenizer_svc/core/json/pattern.h"

namespace hanlin {
namespace {

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct Part {
  uint32_t begin, end;
  bool delimiter;
};

absl::StatusOr<Behavior> ParseBehavior(const Fields& fields, bool required) {
  if (!required && fields.Find("behavior") == nullptr) return Behavior::kIsolated;
  ASSIGN_OR_RETURN(const std::string name, fields.String("behavior"));
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return UnknownType("behavior", name, fields.where());
}

// The parts of a text of `size` bytes whose delimiters are `matches`.
std::vector<Part> PartsOf(size_t size, const std::vector<ByteSpan>& matches) {
  std::vector<Part> parts;
  uint32_t done = 0;
  for (const auto& [begin, end] : matches) {
    if (done != begin) parts.push_back({done, begin, false});
    parts.push_back({begin, end, true});
    done = end;
  }
  if (done != size) parts.push_back({done, static_cast<uint32_t>(size), false});
  return parts;
}

// Parts joined as `behavior` wants them; what is left with `delimiter` set is dropped.
std::vector<Part> Join(std::vector<Part> parts, Behavior behavior) {
  if (behavior == Behavior::kRemoved) return parts;
  if (behavior == Behavior::kMergedWithNext) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  bool previous = false;  // The part before was a delimiter.
  for (const Part& part : parts) {
    bool join = false;
    if (behavior == Behavior::kContiguous) join = part.delimiter == previous;
    if (behavior == Behavior::kMergedWithPrevious || behavior == Behavior::kMergedWithNext) {
      join = part.delimiter && !previous;
    }
    if (join && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, part.begin);
      joined.back().end = std::max(joined.back().end, part.end);
    } else {
      joined.push_back({part.begin, part.end, false});
    }
    previous = part.delimiter;
  }
  if (behavior == Behavior::kMergedWithNext) std::reverse(joined.begin(), joined.end());
  return joined;
}

void AppendWords(const AlignedText& text, std::vector<Part> parts, Behavior behavior,
                 std::vector<AlignedText>* words) {
  for (const Part& part : Join(std::move(parts), behavior)) {
    if (!part.delimiter && part.begin < part.end)
      words->push_back(text.Slice(part.begin, part.end));
  }
}

// Delimiters are the characters of a class.
class CharacterCutter : public PreTokenizer {
 public:
  CharacterCutter(std::function<bool(char32_t)> is_delimiter, Behavior behavior)
      : is_delimiter_(std::move(is_delimiter)), behavior_(behavior) {}

  absl::Status Cut(AlignedText text, uint32_t, std::vector<AlignedText>* words) const override {
    std::vector<ByteSpan> matches;
    for (size_t at = 0; at < text.text().size();) {
      const auto begin = static_cast<uint32_t>(at);
      if (is_delimiter_(TakeCharacter(text.text(), &at))) {
        matches.push_back({begin, static_cast<uint32_t>(at)});
      }
    }
    AppendWords(text, PartsOf(text.text().size(), matches), behavior_, words);
    return absl::OkStatus();
  }

 private:
  std::function<bool(char32_t)> is_delimiter_;
  Behavior behavior_;
};

// Delimiters are the matches of a pattern, or what lies between them (`invert`).
class PatternCutter : public PreTokenizer {
 public:
  PatternCutter(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  absl::Status Cut(AlignedText text, uint32_t, std::vector<AlignedText>* words) const override {
    std::vector<ByteSpan> matches;
    RETURN_IF_ERROR(pattern_.FindAll(text.text(), &matches));
    std::vector<Part> parts = PartsOf(text.text().size(), matches);
    for (Part& part : parts) part.delimiter ^= invert_;
    AppendWords(text, std::move(parts), behavior_, words);
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

class ByteLevelCutter : public PreTokenizer {
 public:
  // `words` finds GPT-2's words; null leaves the text whole.
  ByteLevelCutter(bool add_prefix_space, std::unique_ptr<PatternCutter> words)
      : add_prefix_space_(add_prefix_space), words_(std::move(words)) {}

  absl::Status Cut(AlignedText text, uint32_t begin,
                   std::vector<AlignedText>* words) const override {
    if (add_prefix_space_ && !text.text().starts_with(' ')) text.Prepend(" ");
    const size_t first = words->size();
    if (words_ != nullptr) {
      RETURN_IF_ERROR(words_->Cut(std::move(text), begin, words));
    } else {
      words->push_back(std::move(text));
    }
    for (size_t i = first; i < words->size(); ++i) ToByteLevel(&(*words)[i]);
    return absl::OkStatus();
  }

 private:
  bool add_prefix_space_;
  std::unique_ptr<PatternCutter> words_;
};

class MetaspaceCutter : public PreTokenizer {
 public:
  MetaspaceCutter(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  absl::Status Cut(AlignedText text, uint32_t original_begin,
                   std::vector<AlignedText>* words) const override {
    std::vector<ByteSpan> spaces;
    FindAllLiteral(text.text(), " ", &spaces);
    RETURN_IF_ERROR(CheckExpansion(text.text().size() + spaces.size() * replacement_.size()));
    text.Replace(spaces, replacement_);
    const bool prepend = scheme_ == PrependScheme::kAlways ||
                         (scheme_ == PrependScheme::kFirst && text.offset() == original_begin);
    if (prepend && !text.text().starts_with(replacement_)) text.Prepend(replacement_);
    if (!split_) {
      words->push_back(std::move(text));
      return absl::OkStatus();
    }
    std::vector<ByteSpan> matches;
    FindAllLiteral(text.text(), replacement_, &matches);
    AppendWords(text, PartsOf(text.text().size(), matches), Behavior::kMergedWithNext, words);
    return absl::OkStatus();
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class SequenceCutter : public PreTokenizer {
 public:
  explicit SequenceCutter(std::vector<std::unique_ptr<PreTokenizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Cut(AlignedText text, uint32_t begin,
                   std::vector<AlignedText>* words) const override {
    std::vector<AlignedText> current;
    current.push_back(std::move(text));
    for (const auto& step : steps_) {
      std::vector<AlignedText> next;
      size_t bytes = 0;
      for (AlignedText& word : current) {
        RETURN_IF_ERROR(step->Cut(std::move(word), begin, &next));
      }
      for (const AlignedText& word : next) bytes += word.text().size();
      RETURN_IF_ERROR(CheckExpansion(bytes));
      current = std::move(next);
    }
    std::move(current.begin(), current.end(), std::back_inserter(*words));
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

using Parsed = absl::StatusOr<std::unique_ptr<PreTokenizer>>;

Parsed ParseByteLevel(const Fields& fields) {
  // GPT-2's regular expression, https://github.com/openai/gpt-2 encoder.py.
  constexpr std::string_view kWords =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, fields.BoolOr("use_regex", true));
  std::unique_ptr<PatternCutter> words;
  if (use_regex) {
    ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromRegex(kWords));
    words = std::make_unique<PatternCutter>(std::move(pattern), Behavior::kIsolated, false);
  }
  return std::make_unique<ByteLevelCutter>(add_prefix_space, std::move(words));
}

Parsed ParseMetaspace(const Fields& fields) {
  ASSIGN_OR_RETURN(std::string replacement, fields.Character("replacement"));
  ASSIGN_OR_RETURN(const PrependScheme scheme, ParsePrependScheme(fields));
  ASSIGN_OR_RETURN(const bool split, fields.BoolOr("split", true));
  return std::make_unique<MetaspaceCutter>(std::move(replacement), scheme, split);
}

Parsed ParseSplit(const Fields& fields) {
  ASSIGN_OR_RETURN(Pattern pattern, Pattern::Parse(fields, "pattern"));
  ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(fields, /*required=*/true));
  ASSIGN_OR_RETURN(const bool invert, fields.BoolOr("invert", false));
  return std::make_unique<PatternCutter>(std::move(pattern), behavior, invert);
}

Parsed ParseSequence(const Fields& fields) {
  ASSIGN_OR_RETURN(const Json* parts, fields.Array("pretokenizers"));
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (size_t i = 0; i < parts->size(); ++i) {
    ASSIGN_OR_RETURN(auto step, ParsePreTokenizer((*parts)[i], fields.Path("pretokenizers", i)));
    steps.push_back(std::move(step));
  }
  return std::make_unique<SequenceCutter>(std::move(steps));
}

Parsed ParseDigits(const Fields& fields) {
  ASSIGN_OR_RETURN(const bool individual, fields.BoolOr("individual_digits", false));
  return std::make_unique<CharacterCutter>(
      IsNumeric, individual ? Behavior::kIsolated : Behavior::kContiguous);
}

Parsed ParseDelimiter(const Fields& fields) {
  ASSIGN_OR_RETURN(const std::string delimiter, fields.Character("delimiter"));
  size_t at = 0;
  const char32_t code = TakeCharacter(delimiter, &at);
  return std::make_unique<CharacterCutter>([code](char32_t c) { return c == code; },
                                           Behavior::kRemoved);
}

Parsed MakeWordCutter() {
  ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromRegex(R"(\w+|[^\w\s]+)"));
  return std::make_unique<PatternCutter>(std::move(pattern), Behavior::kRemoved, /*invert=*/true);
}

Parsed MakeBertCutter() {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(std::make_unique<CharacterCutter>(IsWhitespace, Behavior::kRemoved));
  steps.push_back(std::make_unique<CharacterCutter>(IsPunctuation, Behavior::kIsolated));
  return std::make_unique<SequenceCutter>(std::move(steps));
}

}  // namespace

absl::StatusOr<PrependScheme> ParsePrependScheme(const Fields& fields) {
  ASSIGN_OR_RETURN(const std::string name, fields.StringOr("prepend_scheme", "always"));
  ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  if (name != "always" && name != "first" && name != "never") {
    return UnknownType("prepend_scheme", name, fields.where());
  }
  if (name == "never") return PrependScheme::kNever;
  if (!add_prefix_space) {
    // Files from before prepend_scheme existed say it this way.
    if (fields.Find("prepend_scheme") == nullptr) return PrependScheme::kNever;
    return InvalidArgument(
        "{}: add_prefix_space is false but prepend_scheme is \"{}\", want \"never\"",
        fields.where(), name);
  }
  return name == "first" ? PrependScheme::kFirst : PrependScheme::kAlways;
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParsePreTokenizer(const Json& json,
                                                                const std::string& where) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
  ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") return ParseSequence(fields);
  if (type == "ByteLevel") return ParseByteLevel(fields);
  if (type == "Metaspace") return ParseMetaspace(fields);
  if (type == "Split") return ParseSplit(fields);
  if (type == "Digits") return ParseDigits(fields);
  if (type == "CharDelimiterSplit") return ParseDelimiter(fields);
  if (type == "Whitespace") return MakeWordCutter();
  if (type == "BertPreTokenizer") return MakeBertCutter();
  if (type == "WhitespaceSplit") {
    return std::make_unique<CharacterCutter>(IsWhitespace, Behavior::kRemoved);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(fields, /*required=*/false));
    return std::make_unique<CharacterCutter>(IsPunctuation, behavior);
  }
  return UnknownType("pre-tokenizer", type, where);
}

}  // namespace hanlin
