// See json_tokenizer.h.
#include "tokenizer_svc/core/json/json_tokenizer.h"

#include <algorithm>

#include "common/status/status.h"
#include "tokenizer_svc/core/json/added_tokens.h"
#include "tokenizer_svc/core/json/decoder_section.h"
#include "tokenizer_svc/core/json/json_file.h"
#include "tokenizer_svc/core/json/model.h"
#include "tokenizer_svc/core/json/normalizer.h"
#include "tokenizer_svc/core/json/post_processor.h"
#include "tokenizer_svc/core/json/pre_tokenizer.h"

namespace hanlin {
namespace {

class JsonTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const Json& json,
                                                           std::shared_ptr<const Jieba> jieba);

  std::string_view kind() const override { return kind_; }
  std::shared_ptr<const DecoderSpec> decoder_spec() const override { return decoder_spec_; }

 protected:
  absl::StatusOr<Encoding> EncodeValid(std::string_view text, Use use) const override;

 private:
  // Tokens found so far, and room for the pieces of a word. One per call.
  struct Run {
    bool with_special;
    Encoding encoding;
    std::vector<uint32_t> segment_begins;  // [ids]
    std::vector<PieceToken> pieces;

    void Add(int32_t id, ByteSpan origin, uint32_t segment_begin) {
      encoding.ids.push_back(id);
      encoding.offsets.emplace_back(origin.begin, origin.end);
      segment_begins.push_back(segment_begin);
    }
  };

  // Encodes the segment of the text that begins at byte `begin`.
  absl::Status EncodeSegment(std::string_view segment, uint32_t begin, Run* run) const;
  // The same where nothing stands between segment and model.
  absl::Status EncodePlain(std::string_view segment, uint32_t begin, Run* run) const;
  // From the normalizer on; no token of the original text is in `text`.
  absl::Status EncodeStretch(AlignedText text, uint32_t segment_begin, Run* run) const;
  absl::Status EncodeWords(AlignedText text, uint32_t segment_begin, Run* run) const;

  bool HasId(int32_t id) const;
  std::string_view PieceOf(int32_t id) const;
  std::vector<DecoderToken> DecoderTokens() const;

  std::shared_ptr<const Jieba> jieba_;  // May be null, like the next two.
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<Model> model_;
  AddedTokens added_;
  absl::flat_hash_map<int32_t, size_t> added_by_id_;  // Index in added_.tokens().
  PostProcessor post_processor_;
  std::shared_ptr<const DecoderSpec> decoder_spec_;
  std::string kind_;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> JsonTokenizer::Create(
    const Json& json, std::shared_ptr<const Jieba> jieba) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, "tokenizer.json"));
  auto tokenizer = std::make_unique<JsonTokenizer>();
  if (const Json* section = fields.Find("normalizer")) {
    ASSIGN_OR_RETURN(tokenizer->normalizer_, ParseNormalizer(*section, "normalizer"));
  }
  if (const Json* section = fields.Find("pre_tokenizer")) {
    ASSIGN_OR_RETURN(tokenizer->pre_tokenizer_, ParsePreTokenizer(*section, "pre_tokenizer"));
  }
  ASSIGN_OR_RETURN(const Json* model, fields.Object("model"));
  ASSIGN_OR_RETURN(tokenizer->model_, ParseModel(*model, "model"));
  ASSIGN_OR_RETURN(tokenizer->added_,
                   AddedTokens::Parse(fields.Find("added_tokens"), tokenizer->model_->vocabulary(),
                                      tokenizer->normalizer_.get()));
  for (size_t i = 0; i < tokenizer->added_.tokens().size(); ++i) {
    tokenizer->added_by_id_[tokenizer->added_.tokens()[i].id] = i;
  }
  ASSIGN_OR_RETURN(tokenizer->post_processor_,
                   PostProcessor::Parse(fields.Find("post_processor"),
                                        [&](int32_t id) { return tokenizer->HasId(id); }));
  ASSIGN_OR_RETURN(DecoderSpec spec,
                   ParseDecoderSection(fields.Find("decoder"), tokenizer->DecoderTokens()));
  tokenizer->decoder_spec_ = std::make_shared<const DecoderSpec>(std::move(spec));
  tokenizer->kind_ =
      std::string(jieba != nullptr ? "jieba+" : "") + std::string(tokenizer->model_->kind());
  tokenizer->jieba_ = std::move(jieba);
  return tokenizer;
}

bool JsonTokenizer::HasId(int32_t id) const {
  return model_->vocabulary().Has(id) || added_by_id_.contains(id);
}

std::string_view JsonTokenizer::PieceOf(int32_t id) const {
  const auto found = added_by_id_.find(id);
  return found != added_by_id_.end() ? added_.tokens()[found->second].content
                                     : model_->vocabulary().piece(id);
}

std::vector<DecoderToken> JsonTokenizer::DecoderTokens() const {
  const Vocabulary& vocabulary = model_->vocabulary();
  std::vector<DecoderToken> tokens(vocabulary.size());
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.Has(id)) tokens[id] = {vocabulary.piece(id), true, false};
  }
  for (const AddedToken& token : added_.tokens()) {
    if (token.id >= static_cast<int32_t>(tokens.size())) tokens.resize(token.id + 1);
    tokens[token.id] = {token.pattern, true, token.special};
  }
  return tokens;
}

absl::StatusOr<Encoding> JsonTokenizer::EncodeValid(std::string_view text, Use use) const {
  Run run = {.with_special = use == Use::kWhole && jieba_ == nullptr};
  if (jieba_ == nullptr) {
    RETURN_IF_ERROR(EncodeSegment(text, 0, &run));
  } else {
    std::vector<std::string_view> segments;
    jieba_->Cut(text, &segments);
    for (const std::string_view segment : segments) {
      RETURN_IF_ERROR(
          EncodeSegment(segment, static_cast<uint32_t>(segment.data() - text.data()), &run));
    }
    run.encoding.segments.emplace(segments.begin(), segments.end());
  }
  post_processor_.Process(
      text, run.segment_begins, [this](int32_t id) { return PieceOf(id); },
      /*open_end=*/use == Use::kPrompt, &run.encoding);
  return std::move(run.encoding);
}

absl::Status JsonTokenizer::EncodeSegment(std::string_view segment, uint32_t begin,
                                          Run* run) const {
  if (segment.empty()) return absl::OkStatus();
  const bool look_for_tokens = added_.Any(run->with_special);
  if (!look_for_tokens && normalizer_ == nullptr && pre_tokenizer_ == nullptr) {
    return EncodePlain(segment, begin, run);
  }
  const AlignedText whole(segment, begin);
  for (const auto& part : added_.Divide(segment, /*normalized=*/false, run->with_special)) {
    if (part.token >= 0) {
      run->Add(added_.tokens()[part.token].id, whole.Origin(part.begin, part.end), begin);
    } else {
      RETURN_IF_ERROR(EncodeStretch(whole.Slice(part.begin, part.end), begin, run));
    }
  }
  return absl::OkStatus();
}

absl::Status JsonTokenizer::EncodePlain(std::string_view segment, uint32_t begin, Run* run) const {
  run->pieces.clear();
  RETURN_IF_ERROR(model_->Tokenize(segment, &run->pieces));
  const auto inside_character = [&](uint32_t at) {
    return at < segment.size() && (static_cast<uint8_t>(segment[at]) & 0xC0) == 0x80;
  };
  for (PieceToken piece : run->pieces) {
    while (inside_character(piece.begin)) --piece.begin;
    while (inside_character(piece.end)) ++piece.end;
    run->Add(piece.id, {begin + piece.begin, begin + piece.end}, begin);
  }
  return absl::OkStatus();
}

absl::Status JsonTokenizer::EncodeStretch(AlignedText text, uint32_t segment_begin,
                                          Run* run) const {
  if (normalizer_ != nullptr) {
    RETURN_IF_ERROR(normalizer_->Normalize(&text));
    RETURN_IF_ERROR(CheckExpansion(text.text().size()));
  }
  for (const auto& part : added_.Divide(text.text(), /*normalized=*/true, run->with_special)) {
    if (part.token >= 0) {
      run->Add(added_.tokens()[part.token].id, text.Origin(part.begin, part.end), segment_begin);
    } else {
      RETURN_IF_ERROR(EncodeWords(text.Slice(part.begin, part.end), segment_begin, run));
    }
  }
  return absl::OkStatus();
}

absl::Status JsonTokenizer::EncodeWords(AlignedText text, uint32_t segment_begin, Run* run) const {
  std::vector<AlignedText> words;
  if (pre_tokenizer_ != nullptr) {
    RETURN_IF_ERROR(pre_tokenizer_->Cut(std::move(text), segment_begin, &words));
  } else {
    words.push_back(std::move(text));
  }
  for (const AlignedText& word : words) {
    run->pieces.clear();
    RETURN_IF_ERROR(model_->Tokenize(word.text(), &run->pieces));
    for (const PieceToken& piece : run->pieces) {
      run->Add(piece.id, word.Origin(piece.begin, piece.end), segment_begin);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeJsonTokenizer(std::string_view contents,
                                                             std::shared_ptr<const Jieba> jieba) {
  ASSIGN_OR_RETURN(const Json json, ParseJsonFile(contents));
  return JsonTokenizer::Create(json, std::move(jieba));
}

}  // namespace hanlin
