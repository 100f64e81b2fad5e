// Gradients after the backward pass, the optimizer's step, and host copies: the part of
// cuda_model.h that works on the flat arrays.
#include <algorithm>
#include <cmath>

#include "common/cuda/status.h"
#include "kernels/optim/cuda/adamw.h"
#include "model/comm/nccl/cuda_communicator.h"
#include "model/train/collectives.h"
#include "model/train/cuda/cuda_model.h"
#include "model/train/cuda/memory.h"

namespace hanlin {
namespace {

// Calls `work(begin, end, first)` for runs of neighbouring slots that `same` joins to one another;
// `first` is the first slot's index. The gaps between slots are zeros and may be worked on.
template <typename Same, typename Work>
absl::Status ForRuns(const ParameterLayout& layout, Same&& same, Work&& work) {
  const auto& slots = layout.slots();
  for (size_t i = 0, next = 0; i < slots.size(); i = next) {
    for (next = i + 1; next < slots.size() && same(i, next);) ++next;
    const int64_t end = next < slots.size() ? slots[next].offset : layout.size();
    RETURN_IF_ERROR(work(slots[i].offset, end, i));
  }
  return absl::OkStatus();
}

// The gradients that LinearBackward makes.
bool ComesFromProduct(TensorRole role) {
  switch (role) {
    case TensorRole::kWordEmbedding:
    case TensorRole::kQkvWeight:
    case TensorRole::kAttnOutWeight:
    case TensorRole::kMlpUpWeight:
    case TensorRole::kMlpDownWeight:
      return true;
    default:
      return false;
  }
}

}  // namespace

TrainModel::Range CudaTrainModel::OwnedRange() const {
  return hanlin::OwnedRange(options_, layout_);
}

void CudaTrainModel::ZeroGradients() {
  const auto& slots = layout_.slots();
  for (size_t i = 0; i < slots.size(); ++i) unwritten_[i] = ComesFromProduct(slots[i].id.role);
  const absl::Status cleared = ForRuns(
      layout_, [&](size_t a, size_t b) { return unwritten_[a] == unwritten_[b]; },
      [&](int64_t begin, int64_t end, size_t first) {
        if (unwritten_[first]) return absl::OkStatus();
        return CudaStatus(cudaMemsetAsync(gradients_.data() + begin, 0,
                                          (end - begin) * sizeof(float), stream_.get()),
                          "clearing of gradients");
      });
  // An error here is one of an earlier kernel, which the next call that reports will meet.
  cleared.IgnoreError();
}

absl::Status CudaTrainModel::SettleGradient(size_t slot) const {
  if (!unwritten_[slot]) return absl::OkStatus();
  const ParameterSlot& s = layout_.slots()[slot];
  RETURN_IF_CUDA_ERROR(cudaMemsetAsync(gradients_.data() + s.offset, 0,
                                       s.shape.size() * sizeof(float), stream_.get()));
  unwritten_[slot] = false;
  return absl::OkStatus();
}

absl::Status CudaTrainModel::SettleGradients() const {
  for (size_t i = 0; i < unwritten_.size(); ++i) RETURN_IF_ERROR(SettleGradient(i));
  return absl::OkStatus();
}

absl::Status CudaTrainModel::CheckGroups() const {
  for (CudaCommunicator* const group : {cuda_.tensor, cuda_.data}) {
    if (group != nullptr) RETURN_IF_ERROR(group->Check());
  }
  return absl::OkStatus();
}

absl::Status CudaTrainModel::Join(const CudaStream& first, const CudaStream& second) {
  RETURN_IF_ERROR(join_.Record(first));
  return join_.HoldBack(second);
}

absl::Status CudaTrainModel::ReduceNextStretch() {
  const ParameterRange stretch = layout_.Stretch(reduced_++);
  for (size_t i = 0; i < layout_.slots().size(); ++i) {
    const ParameterSlot& slot = layout_.slots()[i];
    if (slot.offset < stretch.begin || slot.offset >= stretch.end) continue;
    if (!options_.frozen.empty() && options_.frozen[i]) unwritten_[i] = true;
    RETURN_IF_ERROR(SettleGradient(i));
  }
  if (cuda_.data == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(Join(stream_, sums_stream_));
  float* const gradients = gradients_.data() + stretch.begin;
  if (!options_.zero) {
    return cuda_.data->AllReduceSum(gradients, stretch.end - stretch.begin, sums_stream_);
  }
  return cuda_.data->ReduceScatterSum(gradients, layout_.Cuts(stretch, cuda_.data->size()),
                                      sums_stream_);
}

absl::Status CudaTrainModel::ReduceGradients() {
  while (reduced_ < layout_.num_stretches()) RETURN_IF_ERROR(ReduceNextStretch());
  reduced_ = 0;
  if (cuda_.data == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(Join(sums_stream_, stream_));
  return cuda_.data->Watch(stream_);
}

absl::StatusOr<double> CudaTrainModel::GradientNorm() {
  RETURN_IF_ERROR(SettleGradients());
  // Of tensors that every rank holds, and of slices.
  double* const sums = squares_.data() + kSquareParts;
  RETURN_IF_CUDA_ERROR(cudaMemsetAsync(sums, 0, 2 * sizeof(double), stream_.get()));
  const auto& slots = layout_.slots();
  const Range owned = OwnedRange();
  RETURN_IF_ERROR(ForRuns(
      layout_,
      [&](size_t a, size_t b) { return tp_size() == 1 || slots[a].sharded == slots[b].sharded; },
      [&](int64_t begin, int64_t end, size_t first) {
        begin = std::max(begin, owned.begin);
        end = std::min(end, owned.end);
        if (begin >= end) return absl::OkStatus();
        return CudaSumOfSquares(gradients_.data() + begin, end - begin, /*add=*/true,
                                squares_.data(), sums + (slots[first].sharded ? 1 : 0),
                                stream_.get());
      }));
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(sums_.data(), sums, 2 * sizeof(double),
                                       cudaMemcpyDeviceToHost, stream_.get()));
  RETURN_IF_ERROR(stream_.Synchronize());
  RETURN_IF_ERROR(CheckGroups());
  double squares[] = {sums_.data()[0], sums_.data()[1]};
  if (options_.zero) RETURN_IF_ERROR(SumOverRanks(options_.data, squares));
  RETURN_IF_ERROR(SumOverRanks(options_.tensor, {&squares[1], 1}));
  return std::sqrt(squares[0] + squares[1]);
}

absl::Status CudaTrainModel::Update(double learning_rate, float gradient_scale, int64_t step) {
  RETURN_IF_ERROR(SettleGradients());
  const Range owned = OwnedRange();
  const auto frozen = [&](size_t i) { return !options_.frozen.empty() && options_.frozen[i]; };
  const auto decay = [&](size_t i) {
    return options_.weight_decay.empty() ? 0.0f : options_.weight_decay[i];
  };
  AdamWParams numbers = {.gradient_scale = gradient_scale, .learning_rate = learning_rate};
  numbers.beta1 = options_.adamw.beta1;
  numbers.beta2 = options_.adamw.beta2;
  numbers.epsilon = options_.adamw.epsilon;
  numbers.step = step;
  RETURN_IF_ERROR(ForRuns(
      layout_, [&](size_t a, size_t b) { return frozen(a) == frozen(b) && decay(a) == decay(b); },
      [&](int64_t begin, int64_t end, size_t first) {
        begin = std::max(begin, owned.begin);
        end = std::min(end, owned.end);
        if (begin >= end || frozen(first)) return absl::OkStatus();
        numbers.weight_decay = decay(first);
        CudaAdamWArrays arrays = {.count = end - begin};
        if (type_ == ComputeType::kFloat32) {
          arrays.parameters = parameters_.floats() + begin;
        } else {
          arrays.high = parameters_.high() + begin;
          arrays.low = parameters_.low() + begin;
        }
        arrays.gradients = gradients_.data() + begin;
        arrays.m = moment1_.data() + (begin - owned.begin);
        arrays.v = moment2_.data() + (begin - owned.begin);
        return CudaAdamW(arrays, numbers, stream_.get());
      }));
  RETURN_IF_ERROR(GatherParameters());
  return parameters_.Refresh(stream_);
}

absl::Status CudaTrainModel::GatherParameters() {
  if (!options_.zero || cuda_.data == nullptr) return absl::OkStatus();
  for (int64_t begin = 0; begin < layout_.size(); begin += CudaParameters::kPart) {
    const int64_t end = std::min(begin + CudaParameters::kPart, layout_.size());
    ASSIGN_OR_RETURN(float* const part, parameters_.Load(begin, end - begin, stream_));
    RETURN_IF_ERROR(
        cuda_.data->AllGather(part, layout_.Cuts({begin, end}, cuda_.data->size()), stream_));
    RETURN_IF_ERROR(parameters_.Store(begin, end - begin, stream_));
  }
  return cuda_.data->Watch(stream_);
}

absl::Status CudaTrainModel::CheckRange(TrainState state, int64_t begin, size_t count) const {
  const bool moment = state == TrainState::kMoment1 || state == TrainState::kMoment2;
  const Range held = moment ? OwnedRange() : Range{0, layout_.size()};
  if (begin < held.begin || begin + static_cast<int64_t>(count) > held.end) {
    return Internal("elements [{}, {}) are not on this rank", begin, begin + count);
  }
  return absl::OkStatus();
}

float* CudaTrainModel::StateAt(TrainState state, int64_t begin) const {
  if (state == TrainState::kGradients) return gradients_.data() + begin;
  const DeviceBuffer<float>& moment = state == TrainState::kMoment1 ? moment1_ : moment2_;
  return moment.data() + (begin - OwnedRange().begin);
}

absl::Status CudaTrainModel::ReadState(TrainState state, int64_t begin,
                                       std::span<float> out) const {
  RETURN_IF_ERROR(CheckRange(state, begin, out.size()));
  if (state == TrainState::kParameters) return parameters_.Read(begin, out, stream_);
  if (state == TrainState::kGradients) RETURN_IF_ERROR(SettleGradients());
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(out.data(), StateAt(state, begin), out.size_bytes(),
                                       cudaMemcpyDeviceToHost, stream_.get()));
  return stream_.Synchronize();
}

absl::Status CudaTrainModel::WriteState(TrainState state, int64_t begin,
                                        std::span<const float> values) {
  RETURN_IF_ERROR(CheckRange(state, begin, values.size()));
  if (state == TrainState::kParameters) return parameters_.Write(begin, values, stream_);
  if (state == TrainState::kGradients) RETURN_IF_ERROR(SettleGradients());
  RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(StateAt(state, begin), values.data(), values.size_bytes(),
                                       cudaMemcpyHostToDevice, stream_.get()));
  return stream_.Synchronize();
}

}  // namespace hanlin
