// A model in training: forward and backward passes, gradients, the optimizer's state. One interface
// for every device; the loop, the data, the schedules and the checkpoints (trainer/) know only
// this.
//
// Parallelism. `tensor` joins the ranks that hold slices of one replica, `data` those that hold the
// same slice of different replicas; both may be groups of one. All ranks call the same methods in
// the same order. With ZeRO-1 a rank keeps the optimizer's moments for its part of the flat array
// only (OwnedRange), gets the gradients of that part summed, updates it and hands it to the others.
//
// Determinism: same inputs, same bits, whatever the number of threads and the recomputation;
// dropout is a function of (seed, step, place).
//
// Failure: errors of the communicators come back as they are (UNAVAILABLE names the rank); the
// model is of no further use then. Thread safety: one thread at a time.
#ifndef HANLIN_MODEL_TRAIN_TRAIN_MODEL_H_
#define HANLIN_MODEL_TRAIN_TRAIN_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"
#include "model/comm/communicator.h"
#include "model/config/config.h"
#include "model/train/parameters.h"

namespace hanlin {

// What backward keeps of forward. kSelective computes LayerNorm and GELU outputs again, kFull keeps
// only the input of each layer. No bit of a result depends on it.
enum class Recompute { kNone, kSelective, kFull };

struct DropoutRates {
  float embedding = 0;
  float attention = 0;  // on the probabilities
  float hidden = 0;     // on the output of attention and MLP
};

// A micro-batch: `sequences` rows of `length` tokens. labels[i] is the token that position i
// predicts. All arrays but document_begin are [sequences * length].
struct TrainBatch {
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> labels;  // ids even where the weight is 0
  std::vector<int32_t> positions;
  std::vector<float> weights;           // of a position's loss in the gradient; 0: masked
  std::vector<int32_t> document_begin;  // see causal_attention.h; empty: one document a row
  uint32_t first_row = 0;  // number of the first token in the global batch, for dropout
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

struct TrainModelOptions {
  ModelConfig config;
  Communicator* tensor = nullptr;  // not owned; null: alone
  Communicator* data = nullptr;    // not owned; null: alone
  bool zero = true;                // ZeRO-1 over `data`
  Recompute recompute = Recompute::kNone;
  // What the CPU model rounds the operands of its products to, and keeps them as; what GELU is
  // computed of is rounded so as well. Everything else, sums and master weights included, is fp32.
  // (CudaTrainOptions has its own.)
  ComputeType operands = ComputeType::kFloat32;
  DropoutRates dropout;
  uint64_t seed = 0;
  AdamWOptions adamw;
  // One entry a tensor of ParameterLayout::slots(); empty: 0 and trained.
  std::vector<float> weight_decay;
  std::vector<bool> frozen;
};

// The flat arrays of a model. Moments exist in OwnedRange alone.
enum class TrainState { kParameters, kGradients, kMoment1, kMoment2 };

class TrainModel {
 public:
  virtual ~TrainModel() = default;

  virtual const TrainModelOptions& options() const = 0;
  virtual const ParameterLayout& layout() const = 0;

  // Part [begin, end) of the flat array whose moments this rank keeps.
  using Range = ParameterRange;
  virtual Range OwnedRange() const = 0;

  // Cross-entropy of every position whose weight is not 0 (of every position with `all`), 0
  // elsewhere, to losses [sequences * length]. No dropout.
  virtual absl::Status Evaluate(const TrainBatch& batch, bool all, std::span<float> losses) = 0;

  // Logits of the token after each of `positions` (places in the batch's arrays, row * length +
  // column) to logits [positions, vocab_size], whole on every tensor-parallel rank. For a few
  // positions, as in generating short samples. No dropout.
  virtual absl::Status Logits(const TrainBatch& batch, std::span<const int64_t> positions,
                              std::span<float> logits) = 0;

  // Adds the gradient of sum(weights * loss) to the gradients; losses as Evaluate without `all`.
  // `step` counts micro-batches of the run and selects the dropout masks. A device may still work
  // on the gradients on return: what goes wrong there is a later call's error.
  virtual absl::Status ForwardBackward(const TrainBatch& batch, uint32_t step,
                                       std::span<float> losses) = 0;

  // The next ForwardBackward is the last before ReduceGradients: a layer's gradient is summed over
  // `data` as soon as it is final, while the backward pass goes on. Until ReduceGradients returns
  // the group belongs to the model. Without the call ReduceGradients does all of it, with the same
  // bits; ranks need not agree on it.
  virtual void ReduceInNextBackward() = 0;

  // Sums the gradients over `data`, or waits for what is left of that. Frozen tensors get zeros.
  // With ZeRO-1 the sums are those of OwnedRange; the rest of the array is of no use until
  // ZeroGradients.
  virtual absl::Status ReduceGradients() = 0;

  // The norm of the whole model's gradient, every tensor counted once.
  virtual absl::StatusOr<double> GradientNorm() = 0;

  // One step of AdamW on gradient * gradient_scale; `step` is 1-based.
  virtual absl::Status Update(double learning_rate, float gradient_scale, int64_t step) = 0;

  virtual void ZeroGradients() = 0;

  // Bytes that a micro-batch of `sequences` rows of `length` tokens takes with a backward pass,
  // besides the flat arrays, if the model recomputed so. They stay for the next one.
  virtual uint64_t ActivationBytes(Recompute recompute, int64_t sequences,
                                   int64_t length) const = 0;

  // Host copies of [begin, begin + size) of an array; within OwnedRange for moments.
  virtual absl::Status ReadState(TrainState state, int64_t begin, std::span<float> out) const = 0;
  virtual absl::Status WriteState(TrainState state, int64_t begin,
                                  std::span<const float> values) = 0;
};

// On CPU threads, in fp32 but for `operands`. INVALID_ARGUMENT for a degree that does not divide
// the model.
absl::StatusOr<std::unique_ptr<TrainModel>> MakeCpuTrainModel(const TrainModelOptions& options,
                                                              ThreadPool& pool);

// Checks a batch against the configuration: sizes, ids, positions. INVALID_ARGUMENT names the
// place.
absl::Status CheckBatch(const ModelConfig& config, const TrainBatch& batch);

// Fills the parameters from a checkpoint.
absl::Status LoadParameters(const Checkpoint& checkpoint, TrainModel& model);

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_TRAIN_MODEL_H_
