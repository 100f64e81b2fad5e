// See added_tokens.h.
#include "tokenizer_svc/core/json/added_tokens.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/json/characters.h"

namespace hanlin {
namespace {

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// The character that ends before `end`, and where it begins.
char32_t CharacterBefore(std::string_view text, size_t end, size_t* begin) {
  *begin = end - 1;
  while (*begin > 0 && IsContinuation(text[*begin])) --*begin;
  size_t at = *begin;
  return TakeCharacter(text, &at);
}

absl::StatusOr<AddedToken> ParseToken(const Json& json, const std::string& where) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(json, where));
  AddedToken token;
  ASSIGN_OR_RETURN(token.id, fields.Int("id"));
  ASSIGN_OR_RETURN(token.content, fields.String("content"));
  ASSIGN_OR_RETURN(token.special, fields.BoolOr("special", false));
  ASSIGN_OR_RETURN(token.single_word, fields.BoolOr("single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, fields.BoolOr("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, fields.BoolOr("rstrip", false));
  ASSIGN_OR_RETURN(token.normalized, fields.BoolOr("normalized", !token.special));
  if (token.content.empty()) return InvalidArgument("{}: content is empty, want some text", where);
  return token;
}

// The id must be the piece's own, or free.
absl::Status CheckId(const AddedToken& token, const Vocabulary& vocabulary, size_t count) {
  const int32_t known = vocabulary.Find(token.content);
  if (known != Vocabulary::kNone && known != token.id) {
    return InvalidArgument("added token \"{}\" has id {}, but {} in the vocabulary", token.content,
                           token.id, known);
  }
  if (known == Vocabulary::kNone && vocabulary.Has(token.id)) {
    return InvalidArgument("added token \"{}\" has id {}, which belongs to \"{}\"", token.content,
                           token.id, vocabulary.piece(token.id));
  }
  const auto limit = std::min<size_t>(Vocabulary::kMaxSize, vocabulary.size() + 4 * count + 65536);
  if (static_cast<size_t>(token.id) >= limit) {
    return InvalidArgument("added token \"{}\" has id {}, want less than {}", token.content,
                           token.id, limit);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const Json* json, const Vocabulary& vocabulary,
                                               const Normalizer* normalizer) {
  AddedTokens added;
  if (json == nullptr) return added;
  if (!json->is_array())
    return InvalidArgument("added_tokens is {}, want an array", json->type_name());
  absl::flat_hash_set<std::string> contents;
  absl::flat_hash_set<int32_t> ids;
  for (size_t i = 0; i < json->size(); ++i) {
    ASSIGN_OR_RETURN(AddedToken token, ParseToken((*json)[i], fmt::format("added_tokens[{}]", i)));
    RETURN_IF_ERROR(CheckId(token, vocabulary, json->size()));
    if (!contents.insert(token.content).second || !ids.insert(token.id).second) {
      return InvalidArgument("added token \"{}\" (id {}) occurs twice", token.content, token.id);
    }
    token.pattern = token.content;
    if (token.normalized && normalizer != nullptr) {
      AlignedText text(token.content, 0);
      RETURN_IF_ERROR(normalizer->Normalize(&text));
      token.pattern = text.text();
    }
    added.any_ordinary_ |= !token.special;
    added.tokens_.push_back(std::move(token));
  }
  for (const bool normalized : {false, true}) {
    std::vector<std::pair<std::string_view, int32_t>> entries;
    absl::flat_hash_set<std::string> patterns;  // Two tokens may look alike once normalized.
    for (size_t i = 0; i < added.tokens_.size(); ++i) {
      const AddedToken& token = added.tokens_[i];
      if (token.normalized != normalized || token.pattern.empty()) continue;
      if (patterns.insert(token.pattern).second) {
        entries.emplace_back(token.pattern, static_cast<int32_t>(i));
      }
    }
    added.tries_[normalized] = ByteTrie::Build(std::move(entries));
  }
  return added;
}

std::vector<AddedTokens::Part> AddedTokens::Divide(std::string_view text, bool normalized,
                                                   bool with_special) const {
  const ByteTrie& trie = tries_[normalized];
  std::vector<Part> parts;
  size_t taken = 0;  // Text before it is in parts.
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    int32_t found = -1;
    size_t stop = at;
    uint32_t node = ByteTrie::kRoot;
    for (size_t end = at; end < text.size() && trie.Step(text[end], &node);) {
      ++end;
      if (trie.value(node) < 0) continue;
      found = trie.value(node);
      stop = end;
    }
    if (found < 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = stop;
    at = stop;
    const AddedToken& token = tokens_[found];
    if ((token.special && !with_special) || begin < taken) continue;
    if (!Accept(token, text, taken, &begin, &end)) continue;
    if (taken < begin) parts.push_back({taken, begin, -1});
    parts.push_back({begin, end, found});
    taken = end;
  }
  if (taken < text.size()) parts.push_back({taken, text.size(), -1});
  return parts;
}

bool AddedTokens::Accept(const AddedToken& token, std::string_view text, size_t taken,
                         size_t* begin, size_t* end) const {
  size_t at = 0;
  if (token.single_word) {
    if (*begin > 0 && IsWordCharacter(CharacterBefore(text, *begin, &at))) return false;
    at = *end;
    if (*end < text.size() && IsWordCharacter(TakeCharacter(text, &at))) return false;
  }
  while (token.lstrip && *begin > taken && IsWhitespace(CharacterBefore(text, *begin, &at)))
    *begin = at;
  for (at = *end; token.rstrip && *end < text.size() && IsWhitespace(TakeCharacter(text, &at));)
    *end = at;
  return true;
}

}  // namespace hanlin
