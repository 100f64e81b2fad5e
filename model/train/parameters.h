// Where the learned numbers of one rank lie in a flat array: the canonical tensors of checkpoint.h
// (this rank's slices), one after another in the order of AllTensors. Parameters, gradients and the
// optimizer's moments share the layout, so the optimizer works on ranges, ZeRO cuts the array where
// it likes, and a checkpoint of one tensor-parallel degree loads at another. Pure functions.
#ifndef HANLIN_MODEL_TRAIN_PARAMETERS_H_
#define HANLIN_MODEL_TRAIN_PARAMETERS_H_

#include <cstdint>
#include <vector>

#include "model/checkpoint/checkpoint.h"
#include "model/config/config.h"

namespace hanlin {

// A tensor's slice on this rank: elements [offset, offset + shape.size()) of the flat array.
struct ParameterSlot {
  TensorId id;
  TensorShape shape;
  int64_t offset = 0;
  bool sharded = false;  // false: every tensor-parallel rank holds all of it
};

// Elements [begin, end) of the flat array.
struct ParameterRange {
  int64_t begin;
  int64_t end;
};

class ParameterLayout {
 public:
  // Every tensor begins at a multiple of this; the gaps stay zero.
  static constexpr int64_t kAlignment = 16;

  ParameterLayout(const ModelConfig& config, int tp_size);

  const std::vector<ParameterSlot>& slots() const { return slots_; }
  const ParameterSlot& Of(TensorId id) const;
  int64_t size() const { return size_; }  // floats, gaps included

  // Where part `part` of `parts` equal ones begins, at a multiple of kAlignment; part `parts`
  // begins at the end. What ZeRO gives to a rank.
  int64_t PartBegin(int part, int parts) const {
    return size_ / kAlignment * part / parts * kAlignment;
  }

  // Where the `parts` equal parts cut `range`, counted from its begin: part p is [cuts[p], cuts[p +
  // 1]), empty where it lies outside.
  std::vector<int64_t> Cuts(ParameterRange range, int parts) const;

  // The array cut into stretches in the order in which a backward pass is done with their
  // gradients: the last layer with the final LayerNorm behind it, the layers before it one by one,
  // the embeddings, to whose table the output layer adds as well.
  int num_stretches() const { return config_.num_layers + 1; }
  ParameterRange Stretch(int index) const;

 private:
  ModelConfig config_;
  std::vector<ParameterSlot> slots_;
  int64_t size_ = 0;
};

// Copies the slice of `tp_rank` [LocalShape] into its place in the full tensor [LocalShape of
// degree 1], and back.
void PlaceSlice(const ModelConfig& config, TensorRole role, int tp_rank, int tp_size,
                const float* slice, float* full);
void TakeSlice(const ModelConfig& config, TensorRole role, int tp_rank, int tp_size,
               const float* full, float* slice);

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_PARAMETERS_H_
