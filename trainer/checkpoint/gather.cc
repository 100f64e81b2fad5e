// Whole tensors out of slices, and slices out of whole tensors: the bridge between a run of any
// parallelism and its checkpoints.
#include <algorithm>
#include <cstring>

#include "common/status/status.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/weight_map.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/files.h"

namespace hanlin {
namespace {

int SizeOf(const Communicator* communicator) {
  return communicator == nullptr ? 1 : communicator->size();
}
int RankOf(const Communicator* communicator) {
  return communicator == nullptr ? 0 : communicator->rank();
}
bool IsMoment(TrainState state) {
  return state == TrainState::kMoment1 || state == TrainState::kMoment2;
}

// Part [begin, end) of a slot that this rank holds of an array.
TrainModel::Range HeldPart(const TrainModel& model, TrainState state, const ParameterSlot& slot) {
  const int64_t end = slot.offset + slot.shape.size();
  if (!IsMoment(state)) return {slot.offset, end};
  const TrainModel::Range owned = model.OwnedRange();
  return {std::clamp(owned.begin, slot.offset, end), std::clamp(owned.end, slot.offset, end)};
}

absl::StatusOr<std::vector<float>> GatherSlice(const TrainModel& model, TrainState state,
                                               const ParameterSlot& slot) {
  std::vector<float> slice(slot.shape.size());
  const TrainModel::Range held = HeldPart(model, state, slot);
  if (held.begin < held.end) {
    RETURN_IF_ERROR(
        model.ReadState(state, held.begin,
                        std::span(slice).subspan(held.begin - slot.offset, held.end - held.begin)));
  }
  const TrainModelOptions& options = model.options();
  if (IsMoment(state) && options.zero && SizeOf(options.data) > 1) {
    RETURN_IF_ERROR(options.data->AllReduceSum(slice));
  }
  return slice;
}

}  // namespace

absl::Status GatherTensors(const TrainModel& model, TrainState state, bool keep,
                           WholeTensors* tensors) {
  const TrainModelOptions& options = model.options();
  const int tp = SizeOf(options.tensor);
  for (const ParameterSlot& slot : model.layout().slots()) {
    ASSIGN_OR_RETURN(std::vector<float> whole, GatherSlice(model, state, slot));
    if (tp > 1 && slot.sharded) {
      const std::vector<float> slice = std::move(whole);
      whole.assign(LocalShape(options.config, slot.id.role, 1).size(), 0.0f);
      PlaceSlice(options.config, slot.id.role, RankOf(options.tensor), tp, slice.data(),
                 whole.data());
      RETURN_IF_ERROR(options.tensor->AllReduceSum(whole));
    }
    for (float& value : whole) value += 0.0f;
    if (keep) tensors->push_back(std::move(whole));
  }
  return absl::OkStatus();
}

absl::Status ScatterTensor(const StoredTensor& stored, const std::string& what,
                           const ParameterSlot& slot, TrainState state, TrainModel& model) {
  const TrainModelOptions& options = model.options();
  const TensorShape shape = LocalShape(options.config, slot.id.role, 1);
  if (stored.dtype != DType::kFloat32 || stored.shape != std::vector{shape.rows, shape.cols}) {
    return FailedPrecondition("{}: {} {}, want float32 [{}, {}]", what, ToString(stored.dtype),
                              ShapeString(stored.shape), shape.rows, shape.cols);
  }
  std::vector<float> whole(shape.size()), slice(slot.shape.size());
  std::memcpy(whole.data(), stored.data, whole.size() * sizeof(float));
  TakeSlice(options.config, slot.id.role, RankOf(options.tensor), SizeOf(options.tensor),
            whole.data(), slice.data());
  const TrainModel::Range held = HeldPart(model, state, slot);
  if (held.begin >= held.end) return absl::OkStatus();
  return model.WriteState(
      state, held.begin,
      std::span<const float>(slice).subspan(held.begin - slot.offset, held.end - held.begin));
}

}  // namespace hanlin
