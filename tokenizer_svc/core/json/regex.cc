// See regex.h.
#include "tokenizer_svc/core/json/regex.h"

#include <oniguruma.h>

#include "absl/cleanup/cleanup.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

constexpr size_t kMaxPatternBytes = size_t{64} << 10;
// Steps back that one match may take; Oniguruma's own default lets a hostile pattern run for
// minutes.
constexpr unsigned long kMaxRetries = 1000000;

const OnigUChar* Bytes(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string OnigMessage(int code, OnigErrorInfo* info) {
  OnigUChar message[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length =
      info ? onig_error_code_to_str(message, code, info) : onig_error_code_to_str(message, code);
  return std::string(reinterpret_cast<char*>(message), length);
}

void InitializeOnce() {
  static const bool initialized = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_retry_limit_in_match(kMaxRetries);
    return true;
  }();
  (void)initialized;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Regex>> Regex::Compile(std::string_view pattern) {
  InitializeOnce();
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidArgument("the regular expression has {} bytes, want at most {}", pattern.size(),
                           kMaxPatternBytes);
  }
  OnigRegex compiled = nullptr;
  OnigErrorInfo info = {};
  const int code =
      onig_new(&compiled, Bytes(pattern.data()), Bytes(pattern.data() + pattern.size()),
               ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_RUBY, &info);
  if (code != ONIG_NORMAL) {
    return InvalidArgument("regular expression \"{}\": {}", pattern, OnigMessage(code, &info));
  }
  return std::shared_ptr<const Regex>(new Regex(compiled));
}

Regex::~Regex() { onig_free(pattern_); }

absl::Status Regex::FindAll(std::string_view text, std::vector<ByteSpan>* matches) const {
  OnigRegion* region = onig_region_new();
  auto free_region = absl::MakeCleanup([region] { onig_region_free(region, 1); });
  const OnigUChar* begin = Bytes(text.data());
  const OnigUChar* end = begin + text.size();
  bool any = false;
  uint32_t last_end = 0;
  for (size_t at = 0; at <= text.size();) {
    const int found = onig_search(pattern_, begin, end, begin + at, end, region, ONIG_OPTION_NONE);
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      return ResourceExhausted("a regular expression failed on a text of {} bytes: {}", text.size(),
                               OnigMessage(found, nullptr));
    }
    const ByteSpan match{static_cast<uint32_t>(region->beg[0]),
                         static_cast<uint32_t>(region->end[0])};
    if (match.begin == match.end && any && match.end == last_end) {
      at += at < text.size() ? Utf8Length(text[at]) : 1;
      continue;
    }
    matches->push_back(match);
    any = true;
    at = last_end = match.end;
  }
  return absl::OkStatus();
}

void FindAllLiteral(std::string_view text, std::string_view needle,
                    std::vector<ByteSpan>* matches) {
  for (size_t at = text.find(needle); at != text.npos; at = text.find(needle, at + needle.size())) {
    matches->push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + needle.size())});
  }
}

}  // namespace hanlin
