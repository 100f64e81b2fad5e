// The "post_processor" section of tokenizer.json: trims spaces off offsets and puts the text
// between template tokens
// ([CLS] … [SEP]). Thread-safe: immutable.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_POST_PROCESSOR_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_POST_PROCESSOR_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/fields.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin {

class PostProcessor {
 public:
  using PieceOf = std::function<std::string_view(int32_t id)>;
  using HasId = std::function<bool(int32_t id)>;

  // `json` may be null: nothing to do. Kinds: Sequence, ByteLevel, BertProcessing,
  // RobertaProcessing, TemplateProcessing (its "single" template). INVALID_ARGUMENT names another
  // kind, or a template token without id.
  static absl::StatusOr<PostProcessor> Parse(const Json* json, const HasId& has_id);

  // `segment_begins` is parallel to encoding->ids: where the jieba segment of a token begins (0
  // without jieba). `open_end` leaves out the template tokens behind the text, so that a model can
  // continue it.
  void Process(std::string_view text, std::span<const uint32_t> segment_begins,
               const PieceOf& piece_of, bool open_end, Encoding* encoding) const;

 private:
  struct Step {
    bool trim = false;
    bool keep_prefix_space =
        false;  // One leading space at the start was put there by the pre-tokenizer.
    std::vector<int32_t> before, after;  // Template tokens.
  };
  absl::Status ParseInto(const Json& json, const std::string& where, const HasId& has_id);
  absl::Status ParseTemplate(const Fields& fields, const HasId& has_id, Step* step);

  std::vector<Step> steps_;
};

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_POST_PROCESSOR_H_
