// See decoder_spec.h.
#include "tokenizer_svc/core/decoder_spec.h"

#include "common/status/status.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

bool IsUtf8(std::string_view text) { return ValidUtf8Prefix(text) == text.size(); }

}  // namespace

absl::Status DecoderSpec::Validate() const {
  if (kind != Kind::kBytes && kind != Kind::kText && kind != Kind::kSuffix) {
    return InvalidArgument("decoder spec: kind is {}, want 1, 2 or 3", static_cast<int>(kind));
  }
  if (start_rule > StartRule::kUntilText) {
    return InvalidArgument("decoder spec: start rule is {}, want 0, 1 or 2",
                           static_cast<int>(start_rule));
  }
  if (attributes.size() != pieces.size()) {
    return InvalidArgument("decoder spec: {} attributes for {} pieces", attributes.size(),
                           pieces.size());
  }
  const size_t want_start = start_rule == StartRule::kNone ? 0 : pieces.size();
  if (start_pieces.size() != want_start) {
    return InvalidArgument("decoder spec: {} start pieces, want {}", start_pieces.size(),
                           want_start);
  }
  if (suffix.empty() == (kind == Kind::kSuffix) || !IsUtf8(suffix)) {
    return InvalidArgument("decoder spec: suffix '{}' does not fit kind {}", suffix,
                           static_cast<int>(kind));
  }
  if (!strip_left.empty()) {
    const Utf8Step step = NextUtf8(strip_left);
    if (step.kind != Utf8Step::Kind::kCharacter || step.length != strip_left.size()) {
      return InvalidArgument("decoder spec: strip_left is not one character");
    }
  }
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (kind == Kind::kBytes) break;
    if ((attributes[id] & kByte) != 0) {
      if (kind == Kind::kText && pieces[id].size() == 1) continue;
      return InvalidArgument("decoder spec: id {} is a byte, but its piece has {} bytes", id,
                             pieces[id].size());
    }
    if (!IsUtf8(pieces[id]) || (want_start != 0 && !IsUtf8(start_pieces[id]))) {
      return InvalidArgument("decoder spec: the piece of id {} is not UTF-8", id);
    }
  }
  return absl::OkStatus();
}

}  // namespace hanlin
