// The layers of a GPT on one GPU: puts the kernels of one pass into a stream, from token ids to
// logits. Neither allocates nor waits; a pass may be captured in a graph. Every kernel is launched
// with programmatic dependent launch where the device has it. Without Hopper the products are
// cublasLt's and attention is the plain one: the plain path.
//
// Per layer: x += Attn(LN1(x)); x += MLP(LN2(x)). The residual stream x is fp32. With one rank the
// additions ride in the epilogues of the products; with a communicator a row-parallel product
// leaves its share in `delta`, which is summed over the ranks and added, with the bias, by the
// LayerNorm that comes next.
//
// One thread at a time, one stream.
#ifndef HANLIN_MODEL_FORWARD_CUDA_TRANSFORMER_H_
#define HANLIN_MODEL_FORWARD_CUDA_TRANSFORMER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/cuda/buffer.h"
#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "kernels/decode_block/cuda/decode_block.h"
#include "kernels/decode_step/cuda/decode_step.h"
#include "kernels/gemm/cuda/linear.h"
#include "model/comm/nccl/cuda_communicator.h"
#include "model/config/config.h"
#include "model/forward/cuda/pass_plan.h"
#include "model/weights/cuda/cuda_weights.h"

namespace hanlin {

class CudaTransformer {
 public:
  struct Options {
    ModelConfig config;
    ComputeType type = ComputeType::kBFloat16;
    CudaDevice device;
    const CudaWeights* weights = nullptr;      // must outlive it
    CudaCommunicator* communicator = nullptr;  // null: no tensor parallelism
    int32_t max_tokens = 0;                    // of a pass
    int32_t max_logit_rows = 0;
    // A row's bits do not depend on the other rows, on cuts of prompts or on preemption: one kernel
    // for all of attention and one for all products. Hopper only.
    bool batch_invariant = false;
  };

  // What a pass reads besides the weights; device memory.
  struct Pass {
    PassShape shape;
    PassView plan;
    int32_t max_segment_tokens = 0;  // the largest num_tokens of the segments
    const int32_t* drawn = nullptr;  // by the step before
    bool all_rows = false;           // logits of every token: row_index is not needed
    // Where the first kernel fetches the plan from, in pinned memory; null: it is there already. In
    // a graph this costs a few microseconds less than a copy between the graphs.
    std::byte* pinned_plan = nullptr;
  };

  // Allocates the activations. RESOURCE_EXHAUSTED without memory; FAILED_PRECONDITION when a
  // library is missing.
  static absl::StatusOr<std::unique_ptr<CudaTransformer>> Create(const Options& options);
  // Bytes of activations that Create takes.
  static uint64_t ActivationBytes(const Options& options);

  // The KV cache, [layers][num_blocks] blocks of PagedKvBlockBytes; used by all later passes.
  void SetKvCache(std::byte* base, int32_t num_blocks) {
    kv_ = base;
    num_blocks_ = num_blocks;
  }

  // Chooses the algorithms of the large products by timing them, and prepares single decode rows.
  // Waits; overwrites activations and `logits` [max_logit_rows, vocabulary].
  absl::Status Prepare(float* logits, const CudaStream& stream);

  // Embedding and layers; leaves the residual stream for Logits.
  absl::Status Layers(const Pass& pass, const CudaStream& stream);
  // Logits of rows [begin, begin + count) of the pass's logit rows to `out` [count, vocabulary].
  absl::Status Logits(const Pass& pass, int32_t begin, int32_t count, float* out,
                      const CudaStream& stream);

  // Whether one-token rows go to the decode kernel of attention.
  bool has_decode_rows() const { return !options_.batch_invariant; }

 private:
  explicit CudaTransformer(const Options& options);

  int tp() const { return options_.communicator == nullptr ? 1 : options_.communicator->size(); }
  int rank() const { return options_.communicator == nullptr ? 0 : options_.communicator->rank(); }
  absl::Status Embed(const Pass& pass, const CudaStream& stream);
  // What a second copy of the weights takes, for decode blocks alone.
  static uint64_t PackedBytes(const Options& options);
  absl::Status PrepareDecode(const CudaStream& stream);
  absl::Status PackBlocks(const CudaStream& stream);
  // The layers of a single decode row, in two kernels each.
  absl::Status DecodeBlocks(const Pass& pass, const CudaStream& stream);
  absl::Status PrepareStep();
  // The layers of a single decode row, in one kernel.
  absl::Status RunStep(const Pass& pass, const CudaStream& stream);
  PagedKv KvOfLayer(const Pass& pass, int layer) const;
  absl::Status Attend(const Pass& pass, int layer, const CudaStream& stream);
  bool CutsRows(const Pass& pass) const;
  absl::Status CutRows(const Pass& pass, const CudaStream& stream);
  // y = epilogue(LN(x) W^T + bias), what is still to be added to x before.
  absl::Status NormLinear(int64_t rows, const CudaVector& norm_weight, const CudaVector& norm_bias,
                          const int32_t* row_index, const CudaMatrix& weight,
                          const CudaVector& bias, LinearEpilogue epilogue, void* y,
                          const CudaStream& stream);
  // x += in W^T + bias, at once or by the next NormLinear.
  absl::Status RowParallel(int64_t rows, const CudaMatrix& weight, const CudaVector& bias,
                           const void* in, const L2Prefetch& next, const CudaStream& stream);
  // Of a matrix that the next product of so many rows reads.
  L2Prefetch Ahead(const CudaMatrix& weight, int64_t rows) const;
  L2Prefetch AheadOfNextLayer(int layer, int64_t rows) const;
  GemmParams Product(int64_t rows, const CudaMatrix& weight, const CudaVector& bias,
                     LinearEpilogue epilogue, const void* x, void* y) const;

  const Options options_;
  const int local_heads_;
  std::unique_ptr<CudaLinear> linear_;
  std::byte* kv_ = nullptr;
  int32_t num_blocks_ = 0;
  const float* pending_bias_ = nullptr;  // of `delta`; null: nothing is pending
  bool pending_ = false;
  float* residual_ = nullptr;  // x_, or tail_x_ behind a cut

  // "type" is the compute type; T tokens, heads and widths of this rank.
  DeviceBuffer<std::byte> memory_;
  float* x_ = nullptr;              // [T, h] the residual stream
  float* delta_ = nullptr;          // [T, h] with a communicator
  std::byte* normed_ = nullptr;     // type [T, h]
  std::byte* qkv_ = nullptr;        // type [T, 3, heads, head_dim]
  std::byte* attention_ = nullptr;  // type [T, heads, head_dim]
  std::byte* mlp_ = nullptr;        // type [T, ffn]
  float* tail_x_ = nullptr;         // [max_logit_rows, h] rows that go on behind the last attention
  std::byte* tail_attention_ = nullptr;  // type [max_logit_rows, heads, head_dim]
  float* shard_ = nullptr;               // [max_logit_rows, vocabulary / tp] with a communicator
  float* scratch_ = nullptr;             // [max_logit_rows, vocabulary] with a communicator

  // Of decode blocks; empty for models that have none and before Prepare. A second copy of the
  // layers' weights: their shape is that of a small model.
  DeviceBuffer<BFloat16> packed_;       // [layers][attention block, MLP block]
  DeviceBuffer<float> block_stream_;    // [2][h] the residual stream behind attention and MLP
  DeviceBuffer<float> block_partials_;  // [heads + MLP partials][h]

  // Of decode steps in one kernel; empty as above.
  DeviceBuffer<DecodeStepLayer> step_layers_;
  DeviceBuffer<DecodeStepExchange> step_exchange_;
  DeviceBuffer<BFloat16> step_attention_;  // [heads, kDecodeStepSplits, head_dim]
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_TRANSFORMER_H_
