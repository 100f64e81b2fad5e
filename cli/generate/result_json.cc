// See result_json.h.
#include "cli/generate/result_json.h"

#include <string_view>

namespace hanlin::cli {
namespace {

Json IdsJson(const google::protobuf::RepeatedField<int32_t>& ids) {
  Json list = Json::array();
  for (const int32_t id : ids) list.push_back(id);
  return list;
}

// Bytes as a list of numbers: a token may be a part of a character.
Json TokenJson(const v1::TokenLogprob& token) {
  Json bytes = Json::array();
  for (const unsigned char byte : token.bytes()) bytes.push_back(static_cast<int>(byte));
  return {{"id", token.id()}, {"logprob", token.logprob()}, {"bytes", std::move(bytes)}};
}

void AddLogprobs(const v1::StreamGenerateResponse& piece, Json* object) {
  if (piece.logprobs().empty()) return;
  Json& list = (*object)["logprobs"] = Json::array();
  for (const v1::PositionLogprobs& position : piece.logprobs()) {
    Json entry = TokenJson(position.token());
    Json& top = entry["top"] = Json::array();
    for (const v1::TokenLogprob& token : position.top()) top.push_back(TokenJson(token));
    list.push_back(std::move(entry));
  }
}

void AddEnd(const v1::StreamGenerateResponse& piece, Json* object) {
  (*object)["finish_reason"] = FinishReasonName(piece.finish_reason());
  if (piece.has_stop_string()) (*object)["stop_string"] = piece.stop_string();
  if (piece.has_stop_id()) (*object)["stop_id"] = piece.stop_id();
  (*object)["usage"] = {{"prompt_tokens", piece.usage().prompt_tokens()},
                        {"completion_tokens", piece.usage().completion_tokens()},
                        {"cached_prompt_tokens", piece.usage().cached_prompt_tokens()}};
  (*object)["timings"] = {{"queue_us", piece.timings().queue_us()},
                          {"time_to_first_token_us", piece.timings().time_to_first_token_us()},
                          {"total_us", piece.timings().total_us()}};
  (*object)["seed"] = piece.seed();
}

}  // namespace

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_END_TOKEN:
      return "end_token";
    case v1::FINISH_REASON_TIME_LIMIT:
      return "time_limit";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    default:
      return "";
  }
}

void MergePiece(const v1::StreamGenerateResponse& piece, v1::StreamGenerateResponse* whole) {
  std::string text = std::move(*whole->mutable_text_delta());
  text += piece.text_delta();
  whole->MergeFrom(piece);  // appends lists, overwrites what is set
  whole->set_text_delta(std::move(text));
}

Json WholeJson(const v1::StreamGenerateResponse& whole) {
  Json object = {{"prompt_ids", IdsJson(whole.prompt_ids())},
                 {"ids", IdsJson(whole.ids())},
                 {"text", whole.text_delta()}};
  AddLogprobs(whole, &object);
  AddEnd(whole, &object);
  return object;
}

Json PieceJson(const v1::StreamGenerateResponse& piece) {
  Json object = {{"text", piece.text_delta()}, {"ids", IdsJson(piece.ids())}};
  AddLogprobs(piece, &object);
  if (piece.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) AddEnd(piece, &object);
  return object;
}

}  // namespace hanlin::cli
