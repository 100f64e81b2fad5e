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
#include "kernels/attention/cpu/attention.h"
#include "kernels/base/arena.h"
#include "kernels/base/types.h"
#include "kernels/gemm/cpu/packed_matrix.h"
#include "model/checkpoint/checkpoint.h"
#include "model/comm/communicator.h"
#include "model/config/config.h"
#include "model/forward/forward_model.h"
#include "model/forward/pass.h"
#include "model/forward/step.h"
#include "model/weights/weights.h"

namespace hanlin {

class GptModel : public ForwardModel {
 public:
  struct Options {
    const Checkpoint* checkpoint = nullptr;  // read during Create only
    // Of the weights, the KV cache and the inputs of matrix products; sums are always fp32.
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
  static absl::StatusOr<std::unique_ptr<GptModel>> Create(const Options& options);
  GptModel(const GptModel&) = delete;
  GptModel& operator=(const GptModel&) = delete;

  absl::Status Check(const StepBatch& batch, size_t logits) const override;
  absl::Status Run(const StepBatch& batch, std::span<float> logits) override;

  const ModelConfig& config() const override { return config_; }
  const StepLimits& limits() const override { return limits_; }
  int tp_size() const { return communicator_->size(); }
  const GptWeights& weights() const { return *weights_; }  // for measurements

  // Positions per KV block.
  static int32_t block_tokens() { return kKvBlockTokens; }
  // KV bytes of one block on one rank, keys and values of all layers.
  static uint64_t KvBlockBytes(const ModelConfig& config, ComputeType type, int tp_size);

 private:
  // Activations of one pass of T tokens on this rank; "type" is the compute type.
  struct Activations {
    Arena arena;
    float* x;              // [T, h] the residual stream
    std::byte* normed;     // type [T, h]
    float* qkv;            // [T, 3, heads / tp, head_dim]
    std::byte* attention;  // type [T, heads / tp, head_dim]
    std::byte* mlp;        // type [T, ffn / tp]
    float* delta;          // [T, h] a rank's share of a row-parallel product
    float* logits_shard;   // [kLogitRowsPerChunk, vocab / tp]; unused by a group of one
  };

  GptModel(const Options& options, const ModelConfig& config);

  absl::Status Allocate();
  absl::Status RunPass(const Pass& pass);
  absl::Status RunLayer(const Pass& pass, int layer);
  absl::Status Embed(const Pass& pass);
  void Attend(const Pass& pass, int layer);
  // x += in · Wᵀ, summed over the ranks, + bias.
  absl::Status RowParallel(int64_t rows, const PackedMatrix& weight, const float* bias,
                           const std::byte* in);
  // normed = LN(in), rows of h.
  void Normalize(int64_t rows, const float* in, const float* weight, const float* bias);
  // Moves the given rows of x and of the attention's output to the front. Behind the last attention
  // only rows whose logits are wanted matter.
  void KeepRows(std::span<const int32_t> rows);
  // Logits of the first `rows` of x to `out` [rows, vocab], null on ranks other than 0.
  absl::Status Logits(int64_t rows, float* out);
  void Beat();

  const ModelConfig config_;
  const ComputeType type_;
  const StepLimits limits_;
  const int32_t max_tokens_per_pass_;
  ThreadPool& pool_;
  std::atomic<uint64_t>* const heartbeat_;
  std::unique_ptr<Communicator> own_communicator_;  // of a group of one
  Communicator* communicator_;
  int64_t local_width_;  // heads / tp · head_dim
  std::unique_ptr<GptWeights> weights_;
  Arena kv_arena_;
  std::byte* kv_ = nullptr;  // [block][layer] blocks of kernels/attention/cpu
  Activations activations_;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_MODEL_H_
