// See decoder_section.h. Steps that treat every token alike are done here, once, on the tables; the
// few that look at the whole text become flags of the spec.
#include "tokenizer_svc/core/json/decoder_section.h"

#include <charconv>
#include <functional>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/normalizer.h"
#include "tokenizer_svc/core/json/pattern.h"
#include "tokenizer_svc/core/json/pre_tokenizer.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

void ReplaceAll(std::string_view from, std::string_view to, std::string* text) {
  for (size_t at = text->find(from); at != text->npos; at = text->find(from, at + to.size())) {
    text->replace(at, from.size(), to);
  }
}

// The byte that "<0x4E>" stands for, -1 when the token is none of these.
int ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? byte : -1;
}

// The clean-up of Hugging Face's WordPiece decoder, token by token.
void CleanUp(std::string* token) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kRules) ReplaceAll(from, to, token);
}

// Takes `content` off the front at most `start` times and off the end at most `stop` times.
void StripToken(std::string_view content, int32_t start, int32_t stop, std::string* token) {
  for (; start > 0 && token->starts_with(content); --start) token->erase(0, content.size());
  for (; stop > 0 && token->ends_with(content); --stop)
    token->resize(token->size() - content.size());
}

class Builder {
 public:
  explicit Builder(const std::vector<DecoderToken>& tokens) {
    for (const DecoderToken& token : tokens) {
      spec_.pieces.push_back(token.text);
      spec_.attributes.push_back(static_cast<uint8_t>((token.present ? 0 : DecoderSpec::kAbsent) |
                                                      (token.special ? DecoderSpec::kSpecial : 0)));
    }
  }

  absl::Status Add(const Json& json, const std::string& where) {
    ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
    ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
    if (type == "Sequence") {
      ASSIGN_OR_RETURN(const Json* steps, fields.Array("decoders"));
      for (size_t i = 0; i < steps->size(); ++i) {
        RETURN_IF_ERROR(Add((*steps)[i], fields.Path("decoders", i)));
      }
      return absl::OkStatus();
    }
    if (type == "Fuse") {
      stage_ = Stage::kText;
      return absl::OkStatus();
    }
    if (type == "Strip" && stage_ == Stage::kText) return AddStripOfText(fields);
    const bool known = type == "ByteLevel" || type == "ByteFallback" || type == "Metaspace" ||
                       type == "WordPiece" || type == "BPEDecoder" || type == "Replace" ||
                       type == "Strip";
    if (!known) return UnknownType("decoder", type, where);
    if (stage_ != Stage::kTokens) {
      return InvalidArgument(
          "{}: decoder \"{}\" comes behind one that joins tokens, so it cannot be "
          "streamed",
          where, type);
    }
    if (type == "ByteLevel") return AddByteLevel(where);
    if (type == "ByteFallback") return AddByteFallback();
    if (type == "Metaspace") return AddMetaspace(fields);
    if (type == "WordPiece") return AddWordPiece(fields);
    if (type == "BPEDecoder") return AddSuffix(fields);
    if (type == "Replace") return AddReplace(fields);
    return AddStripOfTokens(fields);
  }

  // Without a decoder: all but the first token begin with a space.
  void JoinBySpaces() {
    UseStartPieces();
    ForEach(&spec_.pieces, [](std::string* piece) { piece->insert(0, 1, ' '); });
  }

  DecoderSpec Take() { return std::move(spec_); }

 private:
  enum class Stage { kTokens, kBytes, kText };  // What the next step sees: single tokens, or more.

  void ForEach(std::vector<std::string>* pieces, const std::function<void(std::string*)>& change) {
    for (size_t id = 0; id < pieces->size(); ++id) {
      if (!spec_.Has(static_cast<int32_t>(id), DecoderSpec::kAbsent)) change(&(*pieces)[id]);
    }
  }
  void ForEachEverywhere(const std::function<void(std::string*)>& change) {
    ForEach(&spec_.pieces, change);
    ForEach(&spec_.start_pieces, change);
  }
  void UseStartPieces() {
    if (spec_.start_rule == DecoderSpec::StartRule::kFirstPiece) return;
    spec_.start_rule = DecoderSpec::StartRule::kFirstPiece;
    spec_.start_pieces = spec_.pieces;
  }

  absl::Status AddByteLevel(const std::string& where) {
    if (spec_.start_rule != DecoderSpec::StartRule::kNone) {
      return InvalidArgument("{}: decoder \"ByteLevel\" comes behind another one, want it alone",
                             where);
    }
    spec_.kind = DecoderSpec::Kind::kBytes;
    ForEach(&spec_.pieces, [](std::string* piece) {
      std::string bytes;
      for (size_t at = 0; at < piece->size();) {
        const int byte = ByteLevelByte(TakeCharacter(*piece, &at));
        if (byte < 0) return;  // Not byte-level (an added token): its own bytes.
        bytes += static_cast<char>(byte);
      }
      *piece = std::move(bytes);
    });
    stage_ = Stage::kText;
    return absl::OkStatus();
  }

  absl::Status AddByteFallback() {
    for (size_t id = 0; id < spec_.pieces.size(); ++id) {
      const int byte = ByteOfToken(spec_.pieces[id]);
      if (byte < 0 || spec_.Has(static_cast<int32_t>(id), DecoderSpec::kAbsent)) continue;
      spec_.pieces[id].assign(1, static_cast<char>(byte));
      if (!spec_.start_pieces.empty()) spec_.start_pieces[id] = spec_.pieces[id];
      spec_.attributes[id] |= DecoderSpec::kByte;
    }
    stage_ = Stage::kBytes;
    return absl::OkStatus();
  }

  absl::Status AddMetaspace(const Fields& fields) {
    ASSIGN_OR_RETURN(const std::string replacement, fields.Character("replacement"));
    ASSIGN_OR_RETURN(const PrependScheme scheme, ParsePrependScheme(fields));
    if (scheme != PrependScheme::kNever) UseStartPieces();
    ForEach(&spec_.pieces, [&](std::string* piece) { ReplaceAll(replacement, " ", piece); });
    const std::string_view at_start = scheme == PrependScheme::kNever ? " " : "";
    ForEach(&spec_.start_pieces,
            [&](std::string* piece) { ReplaceAll(replacement, at_start, piece); });
    return absl::OkStatus();
  }

  absl::Status AddWordPiece(const Fields& fields) {
    ASSIGN_OR_RETURN(const std::string prefix, fields.StringOr("prefix", "##"));
    ASSIGN_OR_RETURN(const bool clean_up, fields.BoolOr("cleanup", true));
    UseStartPieces();
    ForEach(&spec_.pieces, [&](std::string* piece) {
      if (piece->starts_with(prefix)) {
        piece->erase(0, prefix.size());
      } else {
        piece->insert(0, 1, ' ');
      }
    });
    if (clean_up) ForEachEverywhere(CleanUp);
    return absl::OkStatus();
  }

  absl::Status AddSuffix(const Fields& fields) {
    ASSIGN_OR_RETURN(spec_.suffix, fields.StringOr("suffix", "</w>"));
    if (spec_.suffix.empty()) {
      return InvalidArgument("{}: the suffix of \"BPEDecoder\" is empty", fields.where());
    }
    spec_.kind = DecoderSpec::Kind::kSuffix;
    stage_ = Stage::kText;
    return absl::OkStatus();
  }

  absl::Status AddReplace(const Fields& fields) {
    ASSIGN_OR_RETURN(const Pattern pattern, Pattern::Parse(fields, "pattern"));
    ASSIGN_OR_RETURN(const std::string content, fields.String("content"));
    absl::Status status;
    ForEachEverywhere([&](std::string* piece) {
      std::vector<ByteSpan> matches;
      status.Update(pattern.FindAll(*piece, &matches));
      total_bytes_ += piece->size() + matches.size() * content.size();
      status.Update(CheckExpansion(total_bytes_));
      if (!status.ok()) return;
      AlignedText text(*piece, 0);
      text.Replace(matches, content);
      *piece = text.text();
    });
    return status;
  }

  absl::Status AddStripOfTokens(const Fields& fields) {
    ASSIGN_OR_RETURN(const std::string content, fields.Character("content"));
    ASSIGN_OR_RETURN(const int32_t start, fields.Int("start"));
    ASSIGN_OR_RETURN(const int32_t stop, fields.Int("stop"));
    ForEachEverywhere([&](std::string* piece) { StripToken(content, start, stop, piece); });
    return absl::OkStatus();
  }

  absl::Status AddStripOfText(const Fields& fields) {
    ASSIGN_OR_RETURN(spec_.strip_left, fields.Character("content"));
    ASSIGN_OR_RETURN(const int32_t start, fields.Int("start"));
    ASSIGN_OR_RETURN(const int32_t stop, fields.Int("stop"));
    if (stop != 0 || spec_.strip_left_count != 0) {
      return InvalidArgument(
          "{}: decoder \"Strip\" of the whole text has stop {}, want 0 and one such step",
          fields.where(), stop);
    }
    spec_.strip_left_count = static_cast<uint32_t>(start);
    return absl::OkStatus();
  }

  DecoderSpec spec_;
  Stage stage_ = Stage::kTokens;
  size_t total_bytes_ = 0;  // Of pieces that Replace made, over all its steps.
};

}  // namespace

absl::StatusOr<DecoderSpec> ParseDecoderSection(const Json* json,
                                                const std::vector<DecoderToken>& tokens) {
  Builder builder(tokens);
  if (json == nullptr) {
    builder.JoinBySpaces();
  } else {
    RETURN_IF_ERROR(builder.Add(*json, "decoder"));
  }
  DecoderSpec spec = builder.Take();
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

}  // namespace hanlin
