// One walk over a model's tensors for everyone who stores them (packed for a CPU, on a GPU): which
// tensors there are and where each belongs, pieces of rows of a bounded size, and threads that take
// the pieces one after another. A sink reads its piece from the checkpoint and stores it; pieces
// touch no memory in common.
#ifndef HANLIN_MODEL_WEIGHTS_WALK_H_
#define HANLIN_MODEL_WEIGHTS_WALK_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/threading/thread_pool.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace hanlin {

// Calls matrix(TensorId, &field) and vector(TensorId, &field) for the fields of `weights`, which
// has the members of GptWeights, in the order of the forward pass, so that neighbours in time can
// be neighbours in memory. The positions count as a vector: they are kept in fp32.
template <typename Weights, typename Matrix, typename Vector>
void VisitWeights(const ModelConfig& config, Weights* weights, Matrix&& matrix, Vector&& vector) {
  vector(TensorId{TensorRole::kPositionEmbedding, 0}, &weights->position_embedding);
  weights->layers.resize(config.num_layers);
  for (int i = 0; i < config.num_layers; ++i) {
    auto& layer = weights->layers[i];
    vector(TensorId{TensorRole::kLn1Weight, i}, &layer.ln1_weight);
    vector(TensorId{TensorRole::kLn1Bias, i}, &layer.ln1_bias);
    matrix(TensorId{TensorRole::kQkvWeight, i}, &layer.qkv);
    vector(TensorId{TensorRole::kQkvBias, i}, &layer.qkv_bias);
    matrix(TensorId{TensorRole::kAttnOutWeight, i}, &layer.attention_out);
    vector(TensorId{TensorRole::kAttnOutBias, i}, &layer.attention_bias);
    vector(TensorId{TensorRole::kLn2Weight, i}, &layer.ln2_weight);
    vector(TensorId{TensorRole::kLn2Bias, i}, &layer.ln2_bias);
    matrix(TensorId{TensorRole::kMlpUpWeight, i}, &layer.mlp_up);
    vector(TensorId{TensorRole::kMlpUpBias, i}, &layer.mlp_up_bias);
    matrix(TensorId{TensorRole::kMlpDownWeight, i}, &layer.mlp_down);
    vector(TensorId{TensorRole::kMlpDownBias, i}, &layer.mlp_down_bias);
  }
  vector(TensorId{TensorRole::kFinalLnWeight, 0}, &weights->final_ln_weight);
  vector(TensorId{TensorRole::kFinalLnBias, 0}, &weights->final_ln_bias);
  matrix(TensorId{TensorRole::kWordEmbedding, 0}, &weights->word_embedding);
}

struct WeightPiece {
  size_t tensor;  // index into the shapes
  int64_t row_begin;
  int64_t row_end;
};

// Pieces of about `max_values`, in order; every cut is at a multiple of `row_multiple` rows.
std::vector<WeightPiece> CutIntoPieces(std::span<const TensorShape> shapes, int64_t max_values,
                                       int64_t row_multiple);

// Stores one piece; called by several threads at once, `thread` being one of the pool's.
using WeightSink = std::function<absl::Status(const WeightPiece& piece, int thread)>;

// Gives every piece to `sink`; the first error ends the walk. `progress` (may be null) hears the
// part that is done, 0..1, about a hundred times, from the calling thread.
absl::Status WalkPieces(const std::vector<WeightPiece>& pieces, const WeightSink& sink,
                        const std::function<void(double)>& progress, ThreadPool* pool);

}  // namespace hanlin

#endif  // HANLIN_MODEL_WEIGHTS_WALK_H_
