// See pattern.h.
#include "tokenizer_svc/core/json/pattern.h"

#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<Pattern> Pattern::Parse(const Fields& fields, std::string_view key) {
  ASSIGN_OR_RETURN(const Json* json, fields.Object(key));
  ASSIGN_OR_RETURN(const Fields pattern, Fields::Of(*json, fields.Path(key)));
  if (pattern.Find("Regex") != nullptr) {
    ASSIGN_OR_RETURN(const std::string regex, pattern.String("Regex"));
    auto parsed = FromRegex(regex);
    if (!parsed.ok()) return Annotate(parsed.status(), pattern.where());
    return parsed;
  }
  Pattern literal;
  ASSIGN_OR_RETURN(literal.literal_, pattern.String("String"));
  if (literal.literal_.empty()) {
    return InvalidArgument("{}: the string is empty, want at least one character", pattern.where());
  }
  return literal;
}

absl::StatusOr<Pattern> Pattern::FromRegex(std::string_view regex) {
  Pattern pattern;
  ASSIGN_OR_RETURN(pattern.regex_, Regex::Compile(regex));
  return pattern;
}

absl::Status Pattern::FindAll(std::string_view text, std::vector<ByteSpan>* matches) const {
  if (regex_ != nullptr) return regex_->FindAll(text, matches);
  FindAllLiteral(text, literal_, matches);
  return absl::OkStatus();
}

}  // namespace hanlin
