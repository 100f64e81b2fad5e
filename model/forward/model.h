// One tensor-parallel rank of a GPT on a CPU: its slice of the weights, its heads of the KV cache,
// and the forward pass over a step plan. A row of the logits depends on its sequence alone: not on
// batch neighbours, on how a prompt was cut into chunks, on block ids or on the number of threads
// (law 5: a request is a pure function of its inputs).
//
// Per layer: x += Attn(LN1(x)); x += MLP(LN2(x)); logits = LN_f(x) · WTEᵀ. QKV, MLP up and the
// vocabulary are split by output rows, attention out and MLP down by input columns; one all-reduce
// follows each of these two (and the embedding), and their bias is added once, behind it.
//
// Thread safety: Run is called by one thread at a time, the same on all ranks; it spreads its work
// over Options::pool.
#ifndef HANLIN_MODEL_FORWARD_MODEL_H_
#define HANLIN_MODEL_FORWARD_MODEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "model/checkpoint/checkpoint.h"
#include "model/comm/communicator.h"
#include "model/config/config.h"
#include "model/forward/step.h"

namespace hanlin {

// Type of the weights, of the KV cache and of the inputs of matrix products; sums are always fp32.
enum class ComputeType { kFloat32, kBFloat16 };

class GptModel {
 public:
  struct Options {
    ModelConfig config;
    const Checkpoint* checkpoint = nullptr;  // read during Create only
    ComputeType compute_type = ComputeType::kFloat32;
    // This rank's place in its group. Null: a group of one. Must outlive the model.
    Communicator* communicator = nullptr;
    ThreadPool* pool = nullptr;  // must outlive the model
    // Blocks of block_tokens() positions in the KV cache, shared by all sequences. Their memory is
    // reserved, and taken from the system as blocks are first written.
    int32_t num_kv_blocks = 0;
    // Larger steps run as several passes of this many tokens: bounds the activations' memory.
    int32_t max_tokens_per_pass = 512;
    // Called during Create with the part of the weights that is loaded, 0..1, from one thread at a
    // time.
    std::function<void(double)> progress;
    // Advanced once per layer (and per logits chunk) of every pass: a long prefill is no stall. May
    // be null.
    std::atomic<uint64_t>* heartbeat = nullptr;
  };

  // Loads this rank's slice. Errors: a TP degree that does not divide the model, a damaged
  // checkpoint, RESOURCE_EXHAUSTED when memory cannot be reserved.
  static absl::StatusOr<std::unique_ptr<GptModel>> Create(Options options);
  ~GptModel();
  GptModel(const GptModel&) = delete;
  GptModel& operator=(const GptModel&) = delete;

  // Runs one step: writes the KV cache of the new tokens, and on rank 0 logits [logit_rows,
  // vocab_size] of the wanted rows (other ranks pass an empty span). INVALID_ARGUMENT leaves the
  // model untouched; UNAVAILABLE means that the group is gone.
  absl::Status Run(const StepBatch& batch, std::span<float> logits);

  const ModelConfig& config() const;
  const StepLimits& limits() const;
  // Positions per KV block.
  static int32_t block_tokens();
  // KV bytes of one block on one rank, keys and values of all layers.
  static uint64_t KvBlockBytes(const ModelConfig& config, ComputeType type, int tp_size);

 private:
  class Impl;
  explicit GptModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_MODEL_H_
