// See decoder_wire.h. The enums of spec and message have the same numbers, checked below.
#include "tokenizer_svc/wire/decoder_wire.h"

#include <utility>

#include "common/status/status.h"

namespace hanlin {
namespace {

template <typename Enum>
constexpr int Number(Enum value) {
  return static_cast<int>(value);
}
static_assert(Number(DecoderSpec::Kind::kBytes) == v1::DECODER_KIND_BYTES);
static_assert(Number(DecoderSpec::Kind::kText) == v1::DECODER_KIND_TEXT);
static_assert(Number(DecoderSpec::Kind::kSuffix) == v1::DECODER_KIND_SUFFIX);
static_assert(Number(DecoderSpec::StartRule::kFirstPiece) == v1::DECODER_START_RULE_FIRST_PIECE);
static_assert(Number(DecoderSpec::StartRule::kUntilText) == v1::DECODER_START_RULE_UNTIL_TEXT);

}  // namespace

v1::DecoderSpec DecoderSpecToProto(const DecoderSpec& spec) {
  v1::DecoderSpec message;
  message.set_kind(static_cast<v1::DecoderKind>(spec.kind));
  for (const std::string& piece : spec.pieces) message.add_pieces(piece);
  message.set_attributes(std::string(spec.attributes.begin(), spec.attributes.end()));
  for (const std::string& piece : spec.start_pieces) message.add_start_pieces(piece);
  message.set_start_rule(static_cast<v1::DecoderStartRule>(spec.start_rule));
  message.set_suffix(spec.suffix);
  message.set_strip_left(spec.strip_left);
  message.set_strip_left_count(spec.strip_left_count);
  message.set_clean_up_spaces(spec.clean_up_spaces);
  message.set_join_chinese(spec.join_chinese);
  return message;
}

absl::StatusOr<DecoderSpec> DecoderSpecFromProto(const v1::DecoderSpec& message) {
  // Checked before the casts: proto3 enums are open, a newer peer may send numbers unknown here.
  if (!v1::DecoderKind_IsValid(message.kind()) ||
      !v1::DecoderStartRule_IsValid(message.start_rule())) {
    return InvalidArgument("decoder spec: kind {} with start rule {} is not known here",
                           Number(message.kind()), Number(message.start_rule()));
  }
  DecoderSpec spec;
  spec.kind = static_cast<DecoderSpec::Kind>(message.kind());
  spec.pieces.assign(message.pieces().begin(), message.pieces().end());
  spec.attributes.assign(message.attributes().begin(), message.attributes().end());
  spec.start_pieces.assign(message.start_pieces().begin(), message.start_pieces().end());
  spec.start_rule = static_cast<DecoderSpec::StartRule>(message.start_rule());
  spec.suffix = message.suffix();
  spec.strip_left = message.strip_left();
  spec.strip_left_count = message.strip_left_count();
  spec.clean_up_spaces = message.clean_up_spaces();
  spec.join_chinese = message.join_chinese();
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

}  // namespace hanlin
