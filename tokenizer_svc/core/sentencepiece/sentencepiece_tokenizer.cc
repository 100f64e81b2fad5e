// See sentencepiece_tokenizer.h.
#include "tokenizer_svc/core/sentencepiece/sentencepiece_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status.h"
#include "tokenizer_svc/core/sentencepiece/model.h"
#include "tokenizer_svc/core/sentencepiece/settings.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // "▁", U+2581

std::string WithSpaces(std::string_view piece) {
  std::string out;
  for (size_t at; (at = piece.find(kSpaceSymbol)) != std::string_view::npos;) {
    out.append(piece.substr(0, at)).push_back(' ');
    piece.remove_prefix(at + kSpaceSymbol.size());
  }
  return out.append(piece);
}

// "<0x0A>" to its byte.
absl::StatusOr<std::string> ByteOf(std::string_view piece) {
  unsigned value = 0;
  if (piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>')) {
    const char* end = piece.data() + 5;
    if (std::from_chars(piece.data() + 3, end, value, 16).ptr == end) {
      return std::string(1, static_cast<char>(value));
    }
  }
  return DataLoss("sentencepiece model: byte piece '{}', want <0xNN>", piece);
}

absl::StatusOr<DecoderSpec> MakeSpec(const SentencePieceModel& model,
                                     const SentencePieceSettings& settings) {
  DecoderSpec spec;
  spec.kind = DecoderSpec::Kind::kText;
  const bool strips = settings.add_dummy_prefix || settings.remove_extra_whitespaces;
  if (strips) {
    spec.start_rule = settings.remove_extra_whitespaces ? DecoderSpec::StartRule::kUntilText
                                                        : DecoderSpec::StartRule::kFirstPiece;
  }
  for (int32_t id = 0; id < model.size(); ++id) {
    std::string_view piece = model.piece(id);
    std::string text;
    uint8_t attributes = 0;
    if (model.IsControl(id)) {
      text = std::string(piece);
      attributes = DecoderSpec::kSpecial;
    } else if (model.IsByte(id)) {
      ASSIGN_OR_RETURN(text, ByteOf(piece));
      attributes = DecoderSpec::kByte;
    } else {
      text = model.IsUnknown(id) ? settings.unk_surface : WithSpaces(piece);
    }
    spec.attributes.push_back(attributes);
    if (strips) {
      const bool has_space =
          attributes == 0 && !model.IsUnknown(id) && piece.starts_with(kSpaceSymbol);
      spec.start_pieces.push_back(has_space ? text.substr(1) : text);
    }
    spec.pieces.push_back(std::move(text));
  }
  return spec;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model, DecoderSpec spec)
      : model_(std::move(model)), spec_(std::make_shared<const DecoderSpec>(std::move(spec))) {}

  std::string_view kind() const override { return "sentencepiece"; }
  std::shared_ptr<const DecoderSpec> decoder_spec() const override { return spec_; }

 protected:
  absl::StatusOr<Encoding> EncodeValid(std::string_view text, Use) const override {
    std::vector<SentencePieceModel::Piece> pieces;
    std::string error;
    if (!model_->Encode(text, &pieces, &error)) return Internal("sentencepiece: {}", error);
    Encoding encoding;
    for (const SentencePieceModel::Piece& piece : pieces) {
      encoding.ids.push_back(piece.id);
      encoding.offsets.push_back(WholeCharacters(text, piece));
    }
    return encoding;
  }

 private:
  // sentencepiece gives the bytes of a character to the last of the pieces that it became and an
  // empty range to the others; they touch it all the same. Only a lone "▁" that was added in front
  // touches nothing.
  std::pair<uint32_t, uint32_t> WholeCharacters(std::string_view text,
                                                const SentencePieceModel::Piece& piece) const {
    const uint32_t size = static_cast<uint32_t>(text.size());
    const uint32_t begin = std::min(piece.begin, size);
    uint32_t end = std::clamp(piece.end, begin, size);
    if (begin == end && begin < size && model_->piece(piece.id) != kSpaceSymbol) {
      end = begin + NextUtf8(text.substr(begin)).length;
    }
    return {begin, end};
  }

  const std::unique_ptr<SentencePieceModel> model_;
  const std::shared_ptr<const DecoderSpec> spec_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view model) {
  ASSIGN_OR_RETURN(const SentencePieceSettings settings, ReadSentencePieceSettings(model));
  if (settings.has_denormalizer) {
    return Unimplemented(
        "sentencepiece model: denormalizer_spec is set; text that is rewritten "
        "after decoding cannot be streamed");
  }
  if (settings.treat_whitespace_as_suffix) {
    return Unimplemented("sentencepiece model: treat_whitespace_as_suffix is not implemented");
  }
  std::string error;
  std::unique_ptr<SentencePieceModel> loaded = SentencePieceModel::Load(model, &error);
  if (loaded == nullptr) return DataLoss("sentencepiece model: {}", error);
  ASSIGN_OR_RETURN(DecoderSpec spec, MakeSpec(*loaded, settings));
  RETURN_IF_ERROR(spec.Validate());
  return std::make_unique<SentencePieceTokenizer>(std::move(loaded), std::move(spec));
}

}  // namespace hanlin
