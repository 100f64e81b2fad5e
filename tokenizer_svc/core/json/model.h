// The "model" section of tokenizer.json: one word to pieces. Thread-safe: immutable; each thread
// brings its own output.
#ifndef HANLIN_TOKENIZER_SVC_CORE_JSON_MODEL_H_
#define HANLIN_TOKENIZER_SVC_CORE_JSON_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/json/fields.h"
#include "tokenizer_svc/core/json/vocabulary.h"

namespace hanlin {

// A piece of a word and the bytes [begin, end) of the word that it covers, not empty.
struct PieceToken {
  int32_t id;
  uint32_t begin;
  uint32_t end;
};

class Model {
 public:
  virtual ~Model() = default;
  // "bpe", "unigram", "wordpiece".
  virtual std::string_view kind() const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  // Appends the pieces of `word`, valid UTF-8. INVALID_ARGUMENT: the word has a character that no
  // piece stands for, and the model has no unknown piece.
  virtual absl::Status Tokenize(std::string_view word, std::vector<PieceToken>* pieces) const = 0;
};

// Kinds: BPE, Unigram, WordPiece. INVALID_ARGUMENT names another kind, or what is wrong, and where
// it stands.
absl::StatusOr<std::unique_ptr<Model>> ParseModel(const Json& json, const std::string& where);

// The parsers of each kind, of the "model" object.
absl::StatusOr<std::unique_ptr<Model>> ParseBpe(const Fields& fields);
absl::StatusOr<std::unique_ptr<Model>> ParseUnigram(const Fields& fields);
absl::StatusOr<std::unique_ptr<Model>> ParseWordPiece(const Fields& fields);

// Reads {"piece": id, …} at `key`.
absl::StatusOr<Vocabulary> ParseVocabulary(const Fields& fields, std::string_view key);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_JSON_MODEL_H_
