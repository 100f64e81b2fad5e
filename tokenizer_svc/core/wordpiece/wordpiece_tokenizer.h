// vocab.txt with BertTokenizer: the tokenizer of the base and large models and of most public
// Chinese GPT-2 models. Words by bert_text.h, each cut greedily into the longest pieces of the
// vocabulary ("##" inside a word); a word with an unknown part is one [UNK].
#ifndef HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_WORDPIECE_TOKENIZER_H_
#define HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_WORDPIECE_TOKENIZER_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/tokenizer.h"
#include "tokenizer_svc/core/wordpiece/bert_text.h"

namespace hanlin {

struct WordPieceOptions {
  BertTextOptions text;
  std::string unk_token = "[UNK]";
  std::string cls_token = "[CLS]";
  std::string sep_token = "[SEP]";
  std::string pad_token = "[PAD]";
  std::string mask_token = "[MASK]";
  bool clean_up_spaces = true;
  // ModelScope's rule for the text that base and large models give (spec §4.6).
  bool join_chinese = false;
};

// `vocab` = the bytes of vocab.txt, one token a line, its id the line number from 0.
// INVALID_ARGUMENT when a token of the template or the unknown token is missing, or the file is no
// such list.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeWordPieceTokenizer(std::string_view vocab,
                                                                  const WordPieceOptions& options);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_WORDPIECE_WORDPIECE_TOKENIZER_H_
