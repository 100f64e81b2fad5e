// The weight files of a model folder, opened: which files there are, in which container, and the
// tensors that each tensor-parallel shard holds, by name without prefixes. Counts what is on disk;
// configuration.json is not asked.
#ifndef HANLIN_MODEL_CHECKPOINT_SHARDS_H_
#define HANLIN_MODEL_CHECKPOINT_SHARDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/config/config.h"

namespace hanlin {

// One set of tensors per tensor-parallel shard. Hugging Face and ModelScope B are always one shard,
// possibly spread over several files by an index. ModelScope A: model/mp_rank_XX_model_states.pt,
// or the same names in `directory` itself, numbered from 00 without a gap. NOT_FOUND says what was
// looked for.
absl::StatusOr<std::vector<StoredTensors>> OpenShards(const std::string& directory,
                                                      ModelLayout layout);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_SHARDS_H_
