// See post_processor.h.
#include "tokenizer_svc/core/json/post_processor.h"

#include <algorithm>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/aligned_text.h"
#include "tokenizer_svc/core/json/characters.h"

namespace hanlin {
namespace {

// White space, or the byte-level stand-in for a space.
bool IsPieceSpace(char32_t code) { return code == 0x120 || IsWhitespace(code); }

struct Spaces {
  size_t leading, trailing;
};

Spaces CountSpaces(std::string_view piece) {
  size_t characters = 0, leading = 0, trailing = 0;
  for (size_t at = 0; at < piece.size(); ++characters) {
    const bool space = IsPieceSpace(TakeCharacter(piece, &at));
    if (space && leading == characters) ++leading;
    trailing = space ? trailing + 1 : 0;
  }
  return {leading, trailing};
}

void TrimOffsets(std::string_view text, std::span<const uint32_t> segment_begins,
                 const PostProcessor::PieceOf& piece_of, bool keep_prefix_space,
                 Encoding* encoding) {
  const auto is_continuation = [&](uint32_t at) {
    return at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;
  };
  for (size_t i = 0; i < segment_begins.size(); ++i) {
    auto& [begin, end] = encoding->offsets[i];
    Spaces spaces = CountSpaces(piece_of(encoding->ids[i]));
    const bool first = i == 0 || begin == segment_begins[i];
    if (first && keep_prefix_space && spaces.leading == 1) spaces.leading = 0;
    for (; spaces.leading > 0 && begin < end; --spaces.leading) {
      do ++begin;
      while (is_continuation(begin));
    }
    for (; spaces.trailing > 0 && begin < end; --spaces.trailing) {
      do --end;
      while (is_continuation(end));
    }
  }
}

// ["[SEP]", 102]
absl::StatusOr<int32_t> ParseNamedId(const Fields& fields, std::string_view key,
                                     const PostProcessor::HasId& has_id) {
  ASSIGN_OR_RETURN(const Json* pair, fields.Array(key));
  if (pair->size() != 2 || !(*pair)[1].is_number_unsigned() ||
      (*pair)[1].get<uint64_t>() >= (uint64_t{1} << 31) || !has_id((*pair)[1].get<int32_t>())) {
    return InvalidArgument("{} is {}, want a token and its id", fields.Path(key),
                           pair->dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return (*pair)[1].get<int32_t>();
}

// The ids of the special token `name` of a template.
absl::StatusOr<std::vector<int32_t>> TemplateIds(const Fields& fields, const std::string& name,
                                                 const PostProcessor::HasId& has_id) {
  ASSIGN_OR_RETURN(const Json* table, fields.Object("special_tokens"));
  ASSIGN_OR_RETURN(const Fields tokens, Fields::Of(*table, fields.Path("special_tokens")));
  ASSIGN_OR_RETURN(const Json* entry, tokens.Object(name));
  ASSIGN_OR_RETURN(const Fields token, Fields::Of(*entry, tokens.Path(name)));
  ASSIGN_OR_RETURN(const Json* list, token.Array("ids"));
  std::vector<int32_t> ids;
  for (const Json& id : *list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= (uint64_t{1} << 31) ||
        !has_id(id.get<int32_t>())) {
      return InvalidArgument("{} holds {}, want ids of tokens", token.Path("ids"),
                             id.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::Parse(const Json* json, const HasId& has_id) {
  PostProcessor processor;
  if (json != nullptr) RETURN_IF_ERROR(processor.ParseInto(*json, "post_processor", has_id));
  return processor;
}

absl::Status PostProcessor::ParseInto(const Json& json, const std::string& where,
                                      const HasId& has_id) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
  const absl::StatusOr<std::string> parsed_type = fields.String("type");
  if (!parsed_type.ok()) return parsed_type.status();
  const std::string& type = *parsed_type;
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const Json* parts, fields.Array("processors"));
    for (size_t i = 0; i < parts->size(); ++i) {
      RETURN_IF_ERROR(ParseInto((*parts)[i], fields.Path("processors", i), has_id));
    }
    return absl::OkStatus();
  }
  Step step;
  if (type == "ByteLevel" || type == "RobertaProcessing") {
    ASSIGN_OR_RETURN(step.trim, fields.BoolOr("trim_offsets", true));
    ASSIGN_OR_RETURN(step.keep_prefix_space, fields.BoolOr("add_prefix_space", true));
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    ASSIGN_OR_RETURN(const int32_t cls, ParseNamedId(fields, "cls", has_id));
    ASSIGN_OR_RETURN(const int32_t sep, ParseNamedId(fields, "sep", has_id));
    step.before = {cls};
    step.after = {sep};
  } else if (type == "TemplateProcessing") {
    RETURN_IF_ERROR(ParseTemplate(fields, has_id, &step));
  } else if (type != "ByteLevel") {
    return UnknownType("post-processor", type, where);
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PostProcessor::ParseTemplate(const Fields& fields, const HasId& has_id, Step* step) {
  ASSIGN_OR_RETURN(const Json* pieces, fields.Array("single"));
  bool behind_text = false;
  for (size_t i = 0; i < pieces->size(); ++i) {
    ASSIGN_OR_RETURN(const Fields piece, Fields::Of((*pieces)[i], fields.Path("single", i)));
    const bool is_text = piece.Find("Sequence") != nullptr;
    ASSIGN_OR_RETURN(const Json* body, piece.Object(is_text ? "Sequence" : "SpecialToken"));
    ASSIGN_OR_RETURN(const Fields inner, Fields::Of(*body, piece.where()));
    ASSIGN_OR_RETURN(const std::string id, inner.String("id"));
    if (is_text) {
      if (id != "A" || behind_text) {
        return InvalidArgument("{}: sequence \"{}\", want \"A\" exactly once", piece.where(), id);
      }
      behind_text = true;
      continue;
    }
    ASSIGN_OR_RETURN(const auto ids, TemplateIds(fields, id, has_id));
    auto& side = behind_text ? step->after : step->before;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!behind_text) return InvalidArgument("{}.single lacks the sequence \"A\"", fields.where());
  return absl::OkStatus();
}

void PostProcessor::Process(std::string_view text, std::span<const uint32_t> segment_begins,
                            const PieceOf& piece_of, bool open_end, Encoding* encoding) const {
  // Trimming comes first so that segment_begins stays parallel; template tokens have nothing to
  // trim.
  for (const Step& step : steps_) {
    if (step.trim) TrimOffsets(text, segment_begins, piece_of, step.keep_prefix_space, encoding);
  }
  const auto size = static_cast<uint32_t>(text.size());
  for (const Step& step : steps_) {
    encoding->ids.insert(encoding->ids.begin(), step.before.begin(), step.before.end());
    encoding->offsets.insert(encoding->offsets.begin(), step.before.size(), {0, 0});
    if (open_end) continue;
    encoding->ids.insert(encoding->ids.end(), step.after.begin(), step.after.end());
    encoding->offsets.insert(encoding->offsets.end(), step.after.size(), {size, size});
  }
}

}  // namespace hanlin
