// The memory of one forward and backward pass on the CPU: what each layer keeps, and the scratch
// that layers share. Grows to the largest batch seen. Not thread-safe.
#ifndef HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_
#define HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_

#include <cstdint>
#include <vector>

#include "model/train/train_model.h"

namespace hanlin {

// T = tokens of the micro-batch, h = hidden, H, f, a = heads, MLP width and heads x head_dim of
// this rank.
struct LayerActivations {
  float* x;        // [T, h] the layer's input
  float* mean1;    // [T]
  float* rstd1;    // [T]
  float* ln1;      // [T, h]
  float* qkv;      // [T, 3a]
  float* log_sum;  // [sequences, H, length]
  float* att;      // [T, a]
  float* x1;       // [T, h] after attention
  float* mean2;    // [T]
  float* rstd2;    // [T]
  float* ln2;      // [T, h]
  float* up;       // [T, f] before GELU
  float* act;      // [T, f] after GELU
};

class CpuActivations {
 public:
  CpuActivations(const ModelConfig& config, int tp_size, Recompute recompute);

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
  float* dqkv() { return dqkv_.data(); }              // [T, 3a]
  float* datt() { return datt_.data(); }              // [T, a]
  float* dup() { return dup_.data(); }                // [T, f]
  float* mean() { return statistics_.data(); }        // [T]
  float* rstd() { return statistics_.data() + tokens_; }

  static constexpr int kHiddenBuffers = 3;

 private:
  // One buffer of LayerActivations: its width per token and whether every layer has its own.
  struct Field {
    float* LayerActivations::*pointer;
    int64_t width;
    bool kept;
  };

  const int layers_;
  const int64_t hidden_size_;
  std::vector<Field> fields_;
  std::vector<std::vector<float>> storage_;  // by field
  std::vector<float> inputs_;                // [layers + 1][T, h], or [2][T, h] without `keep`
  std::vector<float> hidden_[kHiddenBuffers];
  std::vector<float> dqkv_, datt_, dup_, statistics_;
  int64_t att_width_, ffn_width_;
  int64_t tokens_ = 0;
  bool keep_ = true;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CPU_ACTIVATIONS_H_
