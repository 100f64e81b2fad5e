// The memory of one forward and backward pass on the CPU: what each layer keeps, and the scratch
// that layers share. Grows to the largest batch seen. Not thread-safe.
#ifndef HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_
#define HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/base/aligned.h"
#include "kernels/base/array.h"
#include "model/train/train_model.h"

namespace hanlin {

// T = tokens of the micro-batch, h = hidden, H, f, a = heads, MLP width and heads x head_dim of
// this rank. What products alone read again is stored as the type they round it to, and so is what
// GELU is computed of.
struct LayerActivations {
  float* x;        // [T, h] the layer's input
  float* mean1;    // [T]
  float* rstd1;    // [T]
  Array ln1;       // [T, h] operand
  Array qkv;       // [T, 3a] operand
  float* log_sum;  // [sequences, H, length]
  Array att;       // [T, a] operand
  float* x1;       // [T, h] after attention
  float* mean2;    // [T]
  float* rstd2;    // [T]
  Array ln2;       // [T, h] operand
  Array up;        // [T, f] operand: before GELU
  Array act;       // [T, f] operand: after GELU
};

class CpuActivations {
 public:
  CpuActivations(const ModelConfig& config, int tp_size, ComputeType operands, Recompute recompute);

  // Makes room for `tokens`; pointers given out before are void. `keep` is false for a pass without
  // a backward pass: all layers share one set.
  void Prepare(int64_t tokens, bool keep);

  // What Prepare(tokens, true) takes.
  int64_t Bytes(int64_t tokens) const;

  LayerActivations Layer(int layer);
  // Input of the final LayerNorm, [T, h]; valid after Prepare.
  float* final_x();

  // Scratch shared by all layers.
  float* hidden(int i) { return hidden_[i].data(); }  // [T, h], i < kHiddenBuffers
  float* datt() { return datt_.data(); }              // [T, a]
  // The gradients of products' outputs, operands: of the MLP's first one, [T, f], and of any other,
  // [T, max(3a, h)].
  Array dup() { return {dup_.data(), operands_}; }
  Array dy() { return {dy_.data(), operands_}; }
  float* mean() { return statistics_.data(); }  // [T]
  float* rstd() { return statistics_.data() + tokens_; }

  static constexpr int kHiddenBuffers = 3;

 private:
  // One buffer of LayerActivations: its width per token, whether it is an operand and whether every
  // layer has its own.
  struct Field {
    float* LayerActivations::*numbers;
    Array LayerActivations::*operand;
    int64_t width;
    bool kept;
  };

  int64_t DyWidth() const;
  size_t OperandBytes(int64_t count) const { return count * SizeOf(operands_); }
  size_t TokenBytes(const Field& field) const {
    return field.operand == nullptr ? field.width * sizeof(float) : OperandBytes(field.width);
  }

  const int layers_;
  const int64_t hidden_size_;
  const ComputeType operands_;
  std::vector<Field> fields_;
  std::vector<AlignedVector<std::byte>> storage_;  // by field
  AlignedVector<float> inputs_;  // [layers + 1][T, h], or [2][T, h] without `keep`
  AlignedVector<float> hidden_[kHiddenBuffers];
  AlignedVector<float> datt_, statistics_;
  AlignedVector<std::byte> dup_, dy_;
  int64_t att_width_, ffn_width_;
  int64_t tokens_ = 0;
  bool keep_ = true;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_
