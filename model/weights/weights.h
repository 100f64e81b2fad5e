// One rank's slice of a model's weights, packed for the CPU kernels and held once: the word
// embedding is both the lookup table and the output layer. Matrices are in the compute type,
// vectors and positions in fp32.
//
// Loading streams: each thread reads a few rows of a tensor from the checkpoint and packs them, so
// beyond the weights themselves only a small buffer a thread is needed. Thread-safe once loaded:
// immutable.
#ifndef HANLIN_MODEL_WEIGHTS_WEIGHTS_H_
#define HANLIN_MODEL_WEIGHTS_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "kernels/base/arena.h"
#include "kernels/base/types.h"
#include "kernels/gemm/cpu/packed_matrix.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace hanlin {

// Shapes on a rank of tp; h hidden, f MLP width. Vectors point into the arena.
struct LayerWeights {
  const float* ln1_weight;      // [h]
  const float* ln1_bias;        // [h]
  PackedMatrix qkv;             // [3 h / tp, h]: rows [3][heads / tp][head_dim]
  const float* qkv_bias;        // [3 h / tp]
  PackedMatrix attention_out;   // [h, h / tp]
  const float* attention_bias;  // [h], added once, behind the all-reduce
  const float* ln2_weight;      // [h]
  const float* ln2_bias;        // [h]
  PackedMatrix mlp_up;          // [f / tp, h]
  const float* mlp_up_bias;     // [f / tp]
  PackedMatrix mlp_down;        // [h, f / tp]
  const float* mlp_down_bias;   // [h], added once, behind the all-reduce
};

struct GptWeights {
  Arena arena;                      // holds everything below
  PackedMatrix word_embedding;      // [vocab / tp, h]
  const float* position_embedding;  // [max_positions, h]
  std::vector<LayerWeights> layers;
  const float* final_ln_weight;  // [h]
  const float* final_ln_bias;    // [h]
};

struct WeightsOptions {
  ComputeType type = ComputeType::kFloat32;
  int tp_rank = 0;
  int tp_size = 1;
  // Told the part that is loaded, 0..1, about a hundred times, from the calling thread. May be
  // null.
  std::function<void(double)> progress;
};

// Bytes that LoadWeights will take on a rank.
uint64_t WeightBytes(const ModelConfig& config, ComputeType type, int tp_size);

// Reads and packs the slice of one rank. INVALID_ARGUMENT for a degree that does not divide the
// model, RESOURCE_EXHAUSTED without address space, and what the checkpoint reports.
absl::StatusOr<std::unique_ptr<GptWeights>> LoadWeights(const Checkpoint& checkpoint,
                                                        const WeightsOptions& options,
                                                        ThreadPool* pool);

}  // namespace hanlin

#endif  // HANLIN_MODEL_WEIGHTS_WEIGHTS_H_
