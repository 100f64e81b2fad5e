// The tokenizer of a model folder. Which files count, first rule that fits:
//   tokenizer_class in tokenizer_config.json          JiebaBPETokenizer → jieba + tokenizer.json,
//                                                     BertTokenizer(Fast) → vocab.txt,
//                                                     else the classes of tokenizer.json and
//                                                     tokenizer.model
//   ModelScope A (`megatron` in configuration.json)   jieba + tokenizer.json
//   tokenizer.json | vocab.txt (WordPiece) | tokenizer.model (sentencepiece)
// Anything else is refused by name. A folder may have a tokenizer and no weights. ModelScope B
// folders (a configuration.json without `megatron`) decode with ModelScope's Chinese-space rule, as
// their pipeline does.
//
// The fingerprint is the SHA-256 of the lines "NAME HASH\n", sorted by name, of the files that were
// read, each HASH the SHA-256 of its bytes; the jieba table takes part as "jieba.bin" where it is
// used.
//
// Thread-safe: no state.
#ifndef HANLIN_TOKENIZER_SVC_CORE_LOADER_H_
#define HANLIN_TOKENIZER_SVC_CORE_LOADER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin {

struct LoadTokenizerOptions {
  // The compiled jieba table; empty = jieba.bin in DataDirectory().
  std::string jieba_table;
};

// NOT_FOUND: no such folder, or no tokenizer in it (the message lists what was looked for);
// INVALID_ARGUMENT or DATA_LOSS: a file is damaged; UNIMPLEMENTED: a part of a file that we do not
// know, by name.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(
    const std::string& directory, const LoadTokenizerOptions& options = {});

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_CORE_LOADER_H_
