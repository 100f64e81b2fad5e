// See parameters.h.
#include "model/train/cuda/parameters.h"

#include <algorithm>

namespace hanlin {
namespace {

bool IsVector(const ParameterSlot& slot) {
  return slot.shape.cols == 1 || slot.id.role == TensorRole::kPositionEmbedding;
}

// Where the vectors lie in one array, by slot; -1: a matrix.
std::vector<int64_t> Places(const ParameterLayout& layout, int64_t* size) {
  std::vector<int64_t> places;
  *size = 0;
  for (const ParameterSlot& slot : layout.slots()) {
    places.push_back(IsVector(slot) ? *size : -1);
    if (!IsVector(slot)) continue;
    constexpr int64_t kAlignment = ParameterLayout::kAlignment;
    *size += (slot.shape.size() + kAlignment - 1) / kAlignment * kAlignment;
  }
  return places;
}

}  // namespace

uint64_t CudaParameters::MasterBytes(const ParameterLayout& layout) {
  return layout.size() * sizeof(float);
}

uint64_t CudaParameters::FixedBytes(const ParameterLayout& layout, ComputeType type) {
  if (type == ComputeType::kFloat32) return 0;
  int64_t vectors = 0;
  const std::vector<int64_t> places = Places(layout, &vectors);
  const auto ranges = std::count_if(places.begin(), places.end(), [](int64_t p) { return p >= 0; });
  return (vectors + kPart) * sizeof(float) + ranges * sizeof(MasterRange);
}

absl::StatusOr<CudaParameters> CudaParameters::Create(const ParameterLayout& layout,
                                                      ComputeType type) {
  CudaParameters made;
  made.layout_ = &layout;
  made.type_ = type;
  if (type == ComputeType::kFloat32) {
    ASSIGN_OR_RETURN(made.floats_, DeviceBuffer<float>::Create(layout.size()));
    RETURN_IF_ERROR(made.floats_.Clear());
    return made;
  }
  ASSIGN_OR_RETURN(made.high_, DeviceBuffer<BFloat16>::Create(layout.size()));
  ASSIGN_OR_RETURN(made.low_, DeviceBuffer<uint16_t>::Create(layout.size()));
  RETURN_IF_ERROR(made.high_.Clear());
  RETURN_IF_ERROR(made.low_.Clear());
  int64_t vectors = 0;
  made.places_ = Places(layout, &vectors);
  std::vector<MasterRange> ranges;
  for (size_t i = 0; i < made.places_.size(); ++i) {
    if (made.places_[i] < 0) continue;
    const ParameterSlot& slot = layout.slots()[i];
    ranges.push_back({.from = slot.offset, .to = made.places_[i], .count = slot.shape.size()});
  }
  ASSIGN_OR_RETURN(made.vectors_, DeviceBuffer<float>::Create(vectors));
  ASSIGN_OR_RETURN(made.ranges_, DeviceBuffer<MasterRange>::From(ranges));
  ASSIGN_OR_RETURN(made.staging_, DeviceBuffer<float>::Create(kPart));
  RETURN_IF_ERROR(made.vectors_.Clear());
  return made;
}

const void* CudaParameters::Matrix(TensorId id) const {
  const int64_t offset = layout_->Of(id).offset;
  if (type_ == ComputeType::kFloat32) return floats_.data() + offset;
  return high_.data() + offset;
}

const float* CudaParameters::Vector(TensorId id) const {
  const ParameterSlot& slot = layout_->Of(id);
  if (type_ == ComputeType::kFloat32) return floats_.data() + slot.offset;
  return vectors_.data() + places_[&slot - layout_->slots().data()];
}

absl::Status CudaParameters::Refresh(const CudaStream& stream) {
  if (type_ == ComputeType::kFloat32) return absl::OkStatus();
  return CudaStatus(
      LaunchJoinRanges(high_.data(), low_.data(), ranges_.data(), static_cast<int>(ranges_.size()),
                       vectors_.data(), stream.get()),
      "launch of the vectors' copy");
}

absl::StatusOr<float*> CudaParameters::Load(int64_t begin, int64_t count,
                                            const CudaStream& stream) const {
  if (type_ == ComputeType::kFloat32) return floats_.data() + begin;
  RETURN_IF_CUDA_ERROR(LaunchJoinMaster(high_.data() + begin, low_.data() + begin, count,
                                        staging_.data(), stream.get()));
  return staging_.data();
}

absl::Status CudaParameters::Store(int64_t begin, int64_t count, const CudaStream& stream) {
  if (type_ == ComputeType::kFloat32) return absl::OkStatus();
  return CudaStatus(LaunchSplitMaster(staging_.data(), count, high_.data() + begin,
                                      low_.data() + begin, stream.get()),
                    "launch of the split of weights");
}

absl::Status CudaParameters::Read(int64_t begin, std::span<float> out,
                                  const CudaStream& stream) const {
  for (size_t done = 0; done < out.size(); done += kPart) {
    const size_t count = std::min<size_t>(kPart, out.size() - done);
    ASSIGN_OR_RETURN(const float* const part, Load(begin + done, count, stream));
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(out.data() + done, part, count * sizeof(float),
                                         cudaMemcpyDeviceToHost, stream.get()));
    RETURN_IF_ERROR(stream.Synchronize());
  }
  return absl::OkStatus();
}

absl::Status CudaParameters::Write(int64_t begin, std::span<const float> values,
                                   const CudaStream& stream) {
  for (size_t done = 0; done < values.size(); done += kPart) {
    const size_t count = std::min<size_t>(kPart, values.size() - done);
    float* const part =
        type_ == ComputeType::kFloat32 ? floats_.data() + begin + done : staging_.data();
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(part, values.data() + done, count * sizeof(float),
                                         cudaMemcpyHostToDevice, stream.get()));
    RETURN_IF_ERROR(Store(begin + done, count, stream));
    RETURN_IF_ERROR(stream.Synchronize());
  }
  return Refresh(stream);
}

}  // namespace hanlin
