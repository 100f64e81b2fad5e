// From files to tokenized samples: reads the rows, applies the recipe's text rules, tokenizes on
// all threads and keeps the result in a cache file, named by the SHA-256 of everything it depends
// on (the tokenizer's fingerprint, the files' bytes, the text rules). A damaged cache is made anew.
// Thread-safe: no state.
#ifndef HANLIN_TRAINER_DATA_DATASET_H_
#define HANLIN_TRAINER_DATA_DATASET_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "tokenizer_svc/core/tokenizer.h"
#include "trainer/config/config.h"
#include "trainer/data/samples.h"

namespace hanlin {

struct DataSetOptions {
  std::vector<std::string> files;
  TrainConfig::Data rules;
  int32_t vocab_size = 0;   // of the model
  bool write_cache = true;  // false on all ranks of a run but one
  // Told what happens: rows left out, cache read or written.
  std::function<void(const std::string&)> report;
};

// INVALID_ARGUMENT: no usable row at all, a column that does not exist, a bad row when they are to
// fail ("FILE:LINE: what").
absl::StatusOr<SampleStore> LoadSamples(const DataSetOptions& options, const Tokenizer& tokenizer,
                                        ThreadPool& pool);

// The source of a row after data.source_replace_from/to and data.source_suffix.
std::string PrepareSource(const TrainConfig::Data& rules, std::string source);

}  // namespace hanlin

#endif  // HANLIN_TRAINER_DATA_DATASET_H_
