// See normalizer.h.
#include "tokenizer_svc/core/json/normalizer.h"

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/characters.h"
#include "tokenizer_svc/core/json/pattern.h"
#include "tokenizer_svc/core/json/unicode_forms.h"

namespace hanlin {
namespace {

void Lowercase(AlignedText* text) {
  std::vector<CharacterChange> changes;
  for (size_t at = 0; at < text->text().size();) {
    const char32_t code = TakeCharacter(text->text(), &at);
    changes.push_back({ToLower(code), 0});
    if (code == 0x130) changes.push_back({0x307, 1});
  }
  text->Transform(changes);
}

void StripWhitespace(bool left, bool right, AlignedText* text) {
  const std::string& bytes = text->text();
  size_t begin = bytes.size(), end = 0;  // Of the part that is not white space.
  for (size_t at = 0; at < bytes.size();) {
    const size_t start = at;
    if (IsWhitespace(TakeCharacter(bytes, &at))) continue;
    begin = std::min(begin, start);
    end = at;
  }
  if (end == 0) return text->Trim(0, left || right ? 0 : bytes.size());
  text->Trim(left ? begin : 0, right ? end : bytes.size());
}

bool IsNmtRemoved(char32_t c) {
  return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
         c == 0x9F;
}

char32_t NmtSpace(char32_t c) {
  const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  return space ? U' ' : c;
}

// A normalizer that a plain function describes.
template <typename Function>
class FunctionNormalizer : public Normalizer {
 public:
  explicit FunctionNormalizer(Function function) : function_(std::move(function)) {}
  absl::Status Normalize(AlignedText* text) const override {
    function_(text);
    return absl::OkStatus();
  }

 private:
  Function function_;
};

template <typename Function>
std::unique_ptr<Normalizer> MakeNormalizer(Function function) {
  return std::make_unique<FunctionNormalizer<Function>>(std::move(function));
}

std::unique_ptr<Normalizer> MakeUnicode(bool compatibility, bool compose) {
  return MakeNormalizer([form = UnicodeForm{compatibility, compose}](AlignedText* text) {
    text->Transform(NormalizeUnicode(text->text(), form));
  });
}

class SequenceNormalizer : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<Normalizer>> steps)
      : steps_(std::move(steps)) {}
  absl::Status Normalize(AlignedText* text) const override {
    for (const auto& step : steps_) {
      RETURN_IF_ERROR(step->Normalize(text));
      RETURN_IF_ERROR(CheckExpansion(text->text().size()));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::Status Normalize(AlignedText* text) const override {
    std::vector<ByteSpan> matches;
    RETURN_IF_ERROR(pattern_.FindAll(text->text(), &matches));
    RETURN_IF_ERROR(CheckExpansion(text->text().size() + matches.size() * content_.size()));
    text->Replace(matches, content_);
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

struct BertOptions {
  bool clean_text, handle_chinese_chars, strip_accents, lowercase;
};

void NormalizeForBert(const BertOptions& options, AlignedText* text) {
  if (options.clean_text) {
    const auto is_space = [](char32_t c) {
      return c == '\t' || c == '\n' || c == '\r' || IsWhitespace(c);
    };
    text->Keep([&](char32_t c) {
      return c != 0 && c != 0xFFFD && (c == '\t' || c == '\n' || c == '\r' || !IsOther(c));
    });
    text->Map([&](char32_t c) { return is_space(c) ? U' ' : c; });
  }
  if (options.handle_chinese_chars) {
    std::vector<CharacterChange> changes;
    for (size_t at = 0; at < text->text().size();) {
      const char32_t code = TakeCharacter(text->text(), &at);
      if (IsBertChinese(code)) {
        changes.insert(changes.end(), {{U' ', 0}, {code, 1}, {U' ', 1}});
      } else {
        changes.push_back({code, 0});
      }
    }
    text->Transform(changes);
  }
  if (options.strip_accents) {
    text->Transform(NormalizeUnicode(text->text(), {.compatibility = false, .compose = false}));
    text->Keep([](char32_t c) { return !IsNonspacingMark(c); });
  }
  if (options.lowercase) Lowercase(text);
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseBert(const Fields& fields) {
  BertOptions options;
  ASSIGN_OR_RETURN(options.clean_text, fields.BoolOr("clean_text", true));
  ASSIGN_OR_RETURN(options.handle_chinese_chars, fields.BoolOr("handle_chinese_chars", true));
  ASSIGN_OR_RETURN(options.lowercase, fields.BoolOr("lowercase", true));
  ASSIGN_OR_RETURN(options.strip_accents, fields.BoolOr("strip_accents", options.lowercase));
  return MakeNormalizer([options](AlignedText* text) { NormalizeForBert(options, text); });
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseSequence(const Fields& fields) {
  ASSIGN_OR_RETURN(const Json* parts, fields.Array("normalizers"));
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (size_t i = 0; i < parts->size(); ++i) {
    ASSIGN_OR_RETURN(auto step, ParseNormalizer((*parts)[i], fields.Path("normalizers", i)));
    steps.push_back(std::move(step));
  }
  return std::make_unique<SequenceNormalizer>(std::move(steps));
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseStrip(const Fields& fields) {
  ASSIGN_OR_RETURN(const bool left, fields.Bool("strip_left"));
  ASSIGN_OR_RETURN(const bool right, fields.Bool("strip_right"));
  return MakeNormalizer([left, right](AlignedText* text) { StripWhitespace(left, right, text); });
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseReplace(const Fields& fields) {
  ASSIGN_OR_RETURN(Pattern pattern, Pattern::Parse(fields, "pattern"));
  ASSIGN_OR_RETURN(std::string content, fields.String("content"));
  return std::make_unique<ReplaceNormalizer>(std::move(pattern), std::move(content));
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParsePrepend(const Fields& fields) {
  ASSIGN_OR_RETURN(std::string prefix, fields.String("prepend"));
  return MakeNormalizer([prefix = std::move(prefix)](AlignedText* text) { text->Prepend(prefix); });
}

std::array<char32_t, 256> MakeByteLevelTable() {
  std::array<char32_t, 256> table{};
  char32_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[byte] = printable ? static_cast<char32_t>(byte) : next++;
  }
  return table;
}
const std::array<char32_t, 256> kByteLevel = MakeByteLevelTable();

}  // namespace

absl::Status CheckExpansion(size_t bytes) {
  constexpr size_t kMaxBytes = size_t{64} << 20;
  if (bytes <= kMaxBytes) return absl::OkStatus();
  return ResourceExhausted("normalization makes a text of {} bytes, want at most {}", bytes,
                           kMaxBytes);
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json& json,
                                                            const std::string& where) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
  ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") return ParseSequence(fields);
  if (type == "NFC") return MakeUnicode(false, true);
  if (type == "NFD") return MakeUnicode(false, false);
  if (type == "NFKC") return MakeUnicode(true, true);
  if (type == "NFKD") return MakeUnicode(true, false);
  if (type == "Lowercase") return MakeNormalizer(Lowercase);
  if (type == "Strip") return ParseStrip(fields);
  if (type == "StripAccents") {
    return MakeNormalizer(
        [](AlignedText* text) { text->Keep([](char32_t c) { return !IsMark(c); }); });
  }
  if (type == "Replace") return ParseReplace(fields);
  if (type == "Prepend") return ParsePrepend(fields);
  if (type == "Nmt") {
    return MakeNormalizer([](AlignedText* text) {
      text->Keep([](char32_t c) { return !IsNmtRemoved(c); });
      text->Map(NmtSpace);
    });
  }
  if (type == "ByteLevel") return MakeNormalizer(ToByteLevel);
  if (type == "BertNormalizer") return ParseBert(fields);
  return UnknownType("normalizer", type, where);
}

char32_t ByteLevelCharacter(uint8_t byte) { return kByteLevel[byte]; }

int ByteLevelByte(char32_t code) {
  if (code < 256) return kByteLevel[code] == code ? static_cast<int>(code) : -1;
  for (int byte = 0; byte < 256; ++byte) {
    if (kByteLevel[byte] == code) return byte;
  }
  return -1;
}

void ToByteLevel(AlignedText* text) {
  std::vector<CharacterChange> changes;
  const std::string& bytes = text->text();
  changes.reserve(bytes.size());
  for (const char byte : bytes) {
    const bool continuation = (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
    changes.push_back({kByteLevel[static_cast<uint8_t>(byte)], continuation ? 1 : 0});
  }
  text->Transform(changes);
}

}  // namespace hanlin
