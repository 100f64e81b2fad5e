// A checkpoint as the rest of Hanlin sees it: one set of full, unsharded, canonical tensors in
// float32, whatever the layout, container, dtype and number of shards on disk. A rank of a
// tensor-parallel group asks for its slice, and only those bytes of the mapped files are touched.
//
// Canonical form of a tensor, [rows, cols], row-major; a vector is [rows, 1]:
//   WordEmbedding [vocab, hidden]: a rank has vocab / tp rows
//   PositionEmbedding [max_positions, hidden]: every rank has all of it
//   QkvWeight [3 * hidden, hidden], QkvBias [3 * hidden]: rows [3][heads / tp][head_dim]
//   AttnOutWeight [hidden, hidden]: columns [heads / tp][head_dim]
//   MlpUpWeight [ffn, hidden], MlpUpBias [ffn]: ffn / tp rows
//   MlpDownWeight [hidden, ffn]: ffn / tp columns
//   LayerNorms, AttnOutBias, MlpDownBias [hidden]: every rank has all of it
// A linear layer is y = W x + b with W [out, in]. Row-split and column-split biases follow
// Megatron: AttnOutBias and MlpDownBias are added once, after the all-reduce.
#ifndef HANLIN_MODEL_CHECKPOINT_CHECKPOINT_H_
#define HANLIN_MODEL_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/config/config.h"

namespace hanlin {

enum class TensorRole {
  kWordEmbedding,
  kPositionEmbedding,
  kLn1Weight,
  kLn1Bias,
  kQkvWeight,
  kQkvBias,
  kAttnOutWeight,
  kAttnOutBias,
  kLn2Weight,
  kLn2Bias,
  kMlpUpWeight,
  kMlpUpBias,
  kMlpDownWeight,
  kMlpDownBias,
  kFinalLnWeight,
  kFinalLnBias,
};

struct TensorId {
  TensorRole role = TensorRole::kWordEmbedding;
  int layer = 0;  // 0-based; 0 for the roles that exist once
  bool operator==(const TensorId&) const = default;
};

struct TensorShape {
  int64_t rows = 0;
  int64_t cols = 1;
  int64_t size() const { return rows * cols; }
  bool operator==(const TensorShape&) const = default;
};

// "qkv_weight of layer 3", for messages.
std::string ToString(TensorId id);

// Every tensor of the model: embeddings, layers in order, final LayerNorm. 4 + 12 * layers of them.
std::vector<TensorId> AllTensors(const ModelConfig& config);

// Shape of the slice of one rank; tp_size 1 gives the full tensor. The degree must pass CheckTp.
TensorShape LocalShape(const ModelConfig& config, TensorRole role, int tp_size);

// Thread-safe: immutable once opened; several threads may read at once.
class Checkpoint {
 public:
  // Opens the weights of a model folder and checks them: names, shapes and dtypes against `config`,
  // replicated tensors across shards, a stored lm_head against the word embedding. Reads headers
  // and small tensors only. NOT_FOUND, DATA_LOSS (damaged file), FAILED_PRECONDITION (another model
  // than `config` says) name file, tensor, seen and wanted.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory,
                                                          const ModelConfig& config);

  // Weights drawn as ModelScope initialises them (normal, std 0.02, the two output projections 0.02
  // / sqrt(2 layers), biases 0, LayerNorm 1 and 0). A pure function of seed, tensor and element, so
  // all degrees and ranks agree.
  static std::unique_ptr<Checkpoint> Random(const ModelConfig& config, uint64_t seed = 0);

  virtual ~Checkpoint() = default;

  const ModelConfig& config() const { return config_; }

  // Rows [row_begin, row_end) of the slice of `tp_rank`, to `dst` [row_end - row_begin, cols]:
  // exact widening to float32. Lets a packer stream a large tensor. INVALID_ARGUMENT for a rank,
  // degree, layer or row out of range.
  absl::Status ReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin, int64_t row_end,
                        float* dst) const;

  // The whole slice, LocalShape(config(), id.role, tp_size).
  absl::Status Read(TensorId id, int tp_rank, int tp_size, float* dst) const;

 protected:
  explicit Checkpoint(const ModelConfig& config) : config_(config) {}

  // ReadRows with arguments already checked.
  virtual absl::Status DoReadRows(TensorId id, int tp_rank, int tp_size, int64_t row_begin,
                                  int64_t row_end, float* dst) const = 0;

 private:
  const ModelConfig config_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_CHECKPOINT_CHECKPOINT_H_
