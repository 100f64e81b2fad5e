// Where each canonical tensor (checkpoint.h) is in a checkpoint: its name and shape in each layout,
// and along which axis tensor parallelism cuts it. Pure functions.
#ifndef HANLIN_MODEL_CHECKPOINT_WEIGHT_MAP_H_
#define HANLIN_MODEL_CHECKPOINT_WEIGHT_MAP_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint/checkpoint.h"

namespace hanlin {

enum class TensorSplit {
  kNone,     // every rank has all of it
  kRows,     // contiguous rows
  kQkvRows,  // whole heads of each of Q, K and V
  kColumns,  // contiguous columns
};

TensorSplit SplitOf(TensorRole role);

// Position of a tensor in AllTensors(config).
size_t TensorIndex(const ModelConfig& config, TensorId id);

// Name in the files, without the prefixes that StripPrefix removes.
std::string StoredName(ModelLayout layout, TensorId id);

// The name without what trainers and wrappers put in front: "transformer." (Hugging Face),
// "module." and "model." (ModelScope).
std::string_view StripPrefix(ModelLayout layout, std::string_view name);

// Shape in a file that holds one of `num_shards` slices. Hugging Face stores matrices as [in, out].
std::vector<int64_t> StoredShape(const ModelConfig& config, TensorRole role, int num_shards);

// Whether the file holds the transpose of the canonical matrix.
bool IsTransposed(ModelLayout layout, TensorRole role);

// Tensors that GPT-2 files may hold besides the weights: causal mask buffers, and the output
// projection, which must equal the word embedding.
bool IsIgnoredBuffer(ModelLayout layout, std::string_view stripped_name);
inline constexpr std::string_view kLmHeadName = "lm_head.weight";

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_WEIGHT_MAP_H_
