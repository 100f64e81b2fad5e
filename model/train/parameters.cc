// See parameters.h.
#include "model/train/parameters.h"

#include <algorithm>
#include <cstring>

#include "model/checkpoint/weight_map.h"

namespace hanlin {
namespace {

// Calls copy(offset in the full tensor, offset in the slice, count) for the contiguous runs of a
// rank's slice.
template <typename Copy>
void ForRuns(const ModelConfig& config, TensorRole role, int tp_rank, int tp_size, Copy copy) {
  const TensorShape full = LocalShape(config, role, 1);
  const TensorShape local = LocalShape(config, role, tp_size);
  switch (SplitOf(role)) {
    case TensorSplit::kNone:
      copy(int64_t{0}, int64_t{0}, full.size());
      break;
    case TensorSplit::kRows:
      copy(tp_rank * local.size(), int64_t{0}, local.size());
      break;
    case TensorSplit::kQkvRows:
      for (int64_t which = 0; which < 3; ++which) {
        const int64_t part = local.size() / 3;
        copy(which * full.size() / 3 + tp_rank * part, which * part, part);
      }
      break;
    case TensorSplit::kColumns:
      for (int64_t row = 0; row < full.rows; ++row) {
        copy(row * full.cols + tp_rank * local.cols, row * local.cols, local.cols);
      }
      break;
  }
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelConfig& config, int tp_size) : config_(config) {
  for (const TensorId id : AllTensors(config)) {
    const TensorShape shape = LocalShape(config, id.role, tp_size);
    slots_.push_back({id, shape, size_, SplitOf(id.role) != TensorSplit::kNone});
    size_ += (shape.size() + kAlignment - 1) / kAlignment * kAlignment;
  }
}

const ParameterSlot& ParameterLayout::Of(TensorId id) const {
  return slots_[TensorIndex(config_, id)];
}

std::vector<int64_t> ParameterLayout::Cuts(ParameterRange range, int parts) const {
  std::vector<int64_t> cuts;
  cuts.reserve(parts + 1);
  for (int part = 0; part <= parts; ++part) {
    cuts.push_back(std::clamp(PartBegin(part, parts), range.begin, range.end) - range.begin);
  }
  return cuts;
}

ParameterRange ParameterLayout::Stretch(int index) const {
  const auto layer_begin = [&](int layer) { return Of({TensorRole::kLn1Weight, layer}).offset; };
  const int layer = config_.num_layers - 1 - index;
  return {layer < 0 ? 0 : layer_begin(layer), index == 0 ? size_ : layer_begin(layer + 1)};
}

void PlaceSlice(const ModelConfig& config, TensorRole role, int tp_rank, int tp_size,
                const float* slice, float* full) {
  ForRuns(config, role, tp_rank, tp_size, [&](int64_t to, int64_t from, int64_t count) {
    std::memcpy(full + to, slice + from, count * sizeof(float));
  });
}

void TakeSlice(const ModelConfig& config, TensorRole role, int tp_rank, int tp_size,
               const float* full, float* slice) {
  ForRuns(config, role, tp_rank, tp_size, [&](int64_t from, int64_t to, int64_t count) {
    std::memcpy(slice + to, full + from, count * sizeof(float));
  });
}

}  // namespace hanlin
