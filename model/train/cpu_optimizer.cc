// Gradients after the backward pass, and the optimizer's step: the part of cpu_model.h that works
// on the flat arrays.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/status/status.h"
#include "kernels/optim/cpu/adamw.h"
#include "model/train/collectives.h"
#include "model/train/cpu_model.h"

namespace hanlin {

TrainModel::Range CpuTrainModel::OwnedRange() const {
  if (!options_.zero) return {0, layout_.size()};
  return {layout_.PartBegin(dp_rank(), dp_size()), layout_.PartBegin(dp_rank() + 1, dp_size())};
}

absl::Status CpuTrainModel::ReduceNextStretch() {
  const ParameterRange stretch = layout_.Stretch(reduced_++);
  for (size_t i = 0; i < options_.frozen.size(); ++i) {
    const ParameterSlot& slot = layout_.slots()[i];
    if (!options_.frozen[i] || slot.offset < stretch.begin || slot.offset >= stretch.end) continue;
    std::fill_n(gradients_.data() + slot.offset, slot.shape.size(), 0.0f);
  }
  return sum_.Add(std::span(gradients_).subspan(stretch.begin, stretch.end - stretch.begin),
                  options_.zero ? layout_.Cuts(stretch, dp_size()) : std::vector<int64_t>());
}

absl::Status CpuTrainModel::ReduceGradients() {
  while (reduced_ < layout_.num_stretches()) RETURN_IF_ERROR(ReduceNextStretch());
  reduced_ = 0;
  return sum_.Wait();
}

absl::StatusOr<double> CpuTrainModel::GradientNorm() {
  const Range owned = OwnedRange();
  double squares[2] = {};  // of tensors that every rank holds, of slices
  for (const ParameterSlot& slot : layout_.slots()) {
    const int64_t begin = std::max(owned.begin, slot.offset);
    const int64_t end = std::min(owned.end, slot.offset + slot.shape.size());
    if (begin >= end) continue;
    squares[slot.sharded ? 1 : 0] += SumOfSquares(gradients_.data() + begin, end - begin, pool_);
  }
  if (options_.zero) RETURN_IF_ERROR(SumOverRanks(options_.data, squares));
  RETURN_IF_ERROR(SumOverRanks(options_.tensor, {&squares[1], 1}));
  return std::sqrt(squares[0] + squares[1]);
}

absl::Status CpuTrainModel::Update(double learning_rate, float gradient_scale, int64_t step) {
  const Range owned = OwnedRange();
  for (size_t i = 0; i < layout_.slots().size(); ++i) {
    const ParameterSlot& slot = layout_.slots()[i];
    if (!options_.frozen.empty() && options_.frozen[i]) continue;
    const int64_t begin = std::max(owned.begin, slot.offset);
    const int64_t end = std::min(owned.end, slot.offset + slot.shape.size());
    if (begin >= end) continue;
    AdamWParams p = {.count = end - begin, .parameters = parameters_.data() + begin};
    p.gradients = gradients_.data() + begin;
    p.m = moment1_.data() + (begin - owned.begin);
    p.v = moment2_.data() + (begin - owned.begin);
    p.gradient_scale = gradient_scale;
    p.learning_rate = learning_rate;
    p.beta1 = options_.adamw.beta1;
    p.beta2 = options_.adamw.beta2;
    p.epsilon = options_.adamw.epsilon;
    p.weight_decay = options_.weight_decay.empty() ? 0 : options_.weight_decay[i];
    p.step = step;
    AdamW(p, pool_);
  }
  if (!options_.zero || dp_size() == 1) return absl::OkStatus();
  return options_.data->AllGather(parameters_, layout_.Cuts({0, layout_.size()}, dp_size()));
}

uint64_t CpuTrainModel::ActivationBytes(Recompute recompute, int64_t sequences,
                                        int64_t length) const {
  return CpuActivations(config_, tp_size(), options_.operands, recompute)
             .Bytes(sequences * length) +
         ClassifierBytes();
}

void CpuTrainModel::ZeroGradients() {
  pool_.ParallelFor(layout_.size(), [&](int64_t begin, int64_t end, int) {
    std::fill(gradients_.begin() + begin, gradients_.begin() + end, 0.0f);
  });
}

absl::Status CpuTrainModel::ReadState(TrainState state, int64_t begin, std::span<float> out) const {
  const bool moment = state == TrainState::kMoment1 || state == TrainState::kMoment2;
  const AlignedVector<float>& array = state == TrainState::kParameters  ? parameters_
                                      : state == TrainState::kGradients ? gradients_
                                      : state == TrainState::kMoment1   ? moment1_
                                                                        : moment2_;
  const int64_t first = begin - (moment ? OwnedRange().begin : 0);
  if (first < 0 || first + static_cast<int64_t>(out.size()) > static_cast<int64_t>(array.size())) {
    return Internal("elements [{}, {}) are not on this rank", begin, begin + out.size());
  }
  std::copy_n(array.begin() + first, out.size(), out.begin());
  return absl::OkStatus();
}

absl::Status CpuTrainModel::WriteState(TrainState state, int64_t begin,
                                       std::span<const float> values) {
  AlignedVector<float>& array = state == TrainState::kParameters  ? parameters_
                                : state == TrainState::kGradients ? gradients_
                                : state == TrainState::kMoment1   ? moment1_
                                                                  : moment2_;
  const bool moment = state == TrainState::kMoment1 || state == TrainState::kMoment2;
  const int64_t first = begin - (moment ? OwnedRange().begin : 0);
  if (first < 0 ||
      first + static_cast<int64_t>(values.size()) > static_cast<int64_t>(array.size())) {
    return Internal("elements [{}, {}) are not on this rank", begin, begin + values.size());
  }
  std::copy(values.begin(), values.end(), array.begin() + first);
  return absl::OkStatus();
}

}  // namespace hanlin
