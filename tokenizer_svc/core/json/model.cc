// See model.h.
#include "tokenizer_svc/core/json/model.h"

#include "common/status/status.h"

namespace hanlin {

absl::StatusOr<std::unique_ptr<Model>> ParseModel(const Json& json, const std::string& where) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
  // Files from before the type was written hold BPE models only if they have merges.
  const std::string_view legacy = fields.Find("merges") != nullptr ? "BPE" : "";
  ASSIGN_OR_RETURN(const std::string type, fields.StringOr("type", legacy));
  if (type == "BPE") return ParseBpe(fields);
  if (type == "Unigram") return ParseUnigram(fields);
  if (type == "WordPiece") return ParseWordPiece(fields);
  return UnknownType("model", type, where);
}

absl::StatusOr<Vocabulary> ParseVocabulary(const Fields& fields, std::string_view key) {
  ASSIGN_OR_RETURN(const Json* json, fields.Object(key));
  std::vector<std::pair<std::string, int32_t>> entries;
  entries.reserve(json->size());
  for (const auto& [piece, id] : json->items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= Vocabulary::kMaxSize) {
      return InvalidArgument(
          "{}: the id of \"{}\" is {}, want an integer below {}", fields.Path(key), piece,
          id.dump(-1, ' ', false, Json::error_handler_t::replace), Vocabulary::kMaxSize);
    }
    entries.emplace_back(piece, id.get<int32_t>());
  }
  auto vocabulary = Vocabulary::Create(entries);
  if (!vocabulary.ok()) return Annotate(vocabulary.status(), fields.Path(key));
  return vocabulary;
}

}  // namespace hanlin
