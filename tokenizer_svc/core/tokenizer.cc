// See tokenizer.h.
#include "tokenizer_svc/core/tokenizer.h"

#include "common/status/status.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

absl::Status CheckText(std::string_view text) {
  if (text.size() > Tokenizer::kMaxTextBytes) {
    return InvalidArgument("the text has {} bytes, want at most {}", text.size(),
                           Tokenizer::kMaxTextBytes);
  }
  const size_t valid = ValidUtf8Prefix(text);
  if (valid != text.size()) {
    return InvalidArgument("the text is not UTF-8: byte {} is 0x{:02X}, want a whole character",
                           valid, static_cast<uint8_t>(text[valid]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Encoding> Tokenizer::Encode(std::string_view text) const {
  RETURN_IF_ERROR(CheckText(text));
  return EncodeValid(text, Use::kWhole);
}

absl::StatusOr<Encoding> Tokenizer::EncodePrompt(std::string_view text) const {
  RETURN_IF_ERROR(CheckText(text));
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return InvalidArgument("the prompt has a NUL character at byte {}, want text without any", nul);
  }
  return EncodeValid(text, Use::kPrompt);
}

}  // namespace hanlin
