// The memory of one forward and backward pass on the GPU: what each layer keeps, the scratch that
// layers share, the block of logits and the batch itself, all in one allocation whose layout is
// computed beforehand. The layout is a pure function of its arguments; a null base measures.
#ifndef HANLIN_MODEL_TRAIN_CUDA_ACTIVATIONS_H_
#define HANLIN_MODEL_TRAIN_CUDA_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/types.h"
#include "kernels/loss/cpu/cross_entropy.h"
#include "model/train/train_model.h"

namespace hanlin {

// "type" is the type of activations; T = tokens of the micro-batch, h = hidden, H, f, a = heads,
// MLP width and heads x head_dim of this rank.
struct CudaLayerActivations {
  std::byte* x;    // type [T, h] the layer's input
  std::byte* ln1;  // type [T, h]
  std::byte* qkv;  // type [T, 3a]
  std::byte* att;  // type [T, a]
  std::byte* x1;   // type [T, h] after attention
  std::byte* ln2;  // type [T, h]
  std::byte* up;   // type [T, f] before GELU
  std::byte* act;  // type [T, f] after GELU
  float* mean1;    // [T]
  float* rstd1;    // [T]
  float* mean2;    // [T]
  float* rstd2;    // [T]
  float* log_sum;  // [sequences, H, length]
};

// What the kernels read of a batch, in the order in which it lies in pinned memory and on the
// device: first what the forward pass reads. Classified rows are those whose loss is wanted, in
// ascending order.
struct CudaBatch {
  int32_t* tokens;          // [T]
  int32_t* positions;       // [T]
  int32_t* document_begin;  // [T]
  int32_t* rows;            // [T] row of the i-th classified one
  int32_t* place;           // [T] i of a row; -1: not classified
  int32_t* labels;          // [T] of the i-th classified row
  float* weights;           // [T] likewise
  int32_t* token_order;     // [T] rows by ascending token, then row
  int32_t* position_order;  // [T] rows by ascending position, then row
};

// Lays a batch of `tokens` out from `base`.
CudaBatch CudaBatchAt(std::byte* base, int64_t tokens);
size_t CudaBatchBytes(int64_t tokens);

class CudaActivations {
 public:
  // Rows of logits that exist at a time.
  static constexpr int64_t kClassifierRows = 4096;
  static constexpr int kHiddenBuffers = 3;

  CudaActivations() = default;
  // `keep` is false for a pass without a backward pass: all layers share one set.
  CudaActivations(const TrainModelOptions& options, ComputeType type, int64_t sequences,
                  int64_t length, bool keep, std::byte* base);

  size_t bytes() const { return bytes_; }
  size_t logits_bytes() const { return logits_bytes_; }

  CudaLayerActivations Layer(int layer) const;
  std::byte* final_x() const;  // type [T, h] input of the final LayerNorm

  std::byte* hidden[kHiddenBuffers] = {};  // type [T, h]
  std::byte* dqkv = nullptr;               // type [T, 3a]
  std::byte* datt = nullptr;               // type [T, a]
  std::byte* dup = nullptr;                // type [T, f]
  float* mean = nullptr;                   // [T] of the final LayerNorm
  float* rstd = nullptr;                   // [T]
  float* sums = nullptr;                   // [T, h] for sums over ranks where type is not fp32
  std::byte* workspace = nullptr;          // of whatever kernel runs
  std::byte* logits = nullptr;             // type [kClassifierRows, vocabulary of this rank]
  CrossEntropyStat* stats = nullptr;       // [kClassifierRows, ranks]
  float* log_sum = nullptr;                // [kClassifierRows]
  float* losses = nullptr;                 // [T] of classified rows
  std::byte* batch = nullptr;              // CudaBatchBytes

 private:
  // A buffer of CudaLayerActivations: its bytes, padding included, and whether every layer has its
  // own.
  struct Field {
    size_t bytes;
    bool kept;
    std::byte* base = nullptr;
  };
  enum { kLn1, kQkv, kAtt, kX1, kLn2, kUp, kAct, kMean1, kRstd1, kMean2, kRstd2, kLogSum, kFields };
  std::byte* Of(int field, int layer) const;

  Field fields_[kFields] = {};
  std::byte* inputs_ = nullptr;  // [layers + 1][T, h], or [2][T, h] without `keep`
  int layers_ = 0;
  size_t hidden_bytes_ = 0;  // of [T, h], padding included
  bool keep_ = true;
  size_t bytes_ = 0;
  size_t logits_bytes_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CUDA_ACTIVATIONS_H_
