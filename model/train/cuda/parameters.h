// The learned numbers of one rank on the device, in the layout of ParameterLayout: in fp32, or
// split into a bf16 working copy and the rest of the fp32 master (split_master.h) with the vectors
// beside them in fp32, as the kernels read those. One thread, one stream.
#ifndef HANLIN_MODEL_TRAIN_CUDA_PARAMETERS_H_
#define HANLIN_MODEL_TRAIN_CUDA_PARAMETERS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "common/cuda/buffer.h"
#include "common/cuda/stream.h"
#include "kernels/base/types.h"
#include "kernels/optim/cuda/split_master.h"
#include "model/train/parameters.h"

namespace hanlin {

class CudaParameters {
 public:
  // Zeros. `layout` must outlive it. RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<CudaParameters> Create(const ParameterLayout& layout, ComputeType type);
  static uint64_t MasterBytes(const ParameterLayout& layout);
  // Of vectors and staging.
  static uint64_t FixedBytes(const ParameterLayout& layout, ComputeType type);

  ComputeType type() const { return type_; }
  // Of any tensor, in `type`.
  const void* Matrix(TensorId id) const;
  // A vector, or the position table, in fp32.
  const float* Vector(TensorId id) const;
  // A bias in `type`, as products want it.
  const void* Bias(TensorId id) const { return Matrix(id); }

  // The arrays themselves, for the optimizer: either floats() or high() and low(). Refresh brings
  // what is derived from them up to date.
  float* floats() const { return type_ == ComputeType::kFloat32 ? floats_.data() : nullptr; }
  BFloat16* high() const { return high_.data(); }
  uint16_t* low() const { return low_.data(); }
  absl::Status Refresh(const CudaStream& stream);

  // Host copies of [begin, begin + size); wait.
  absl::Status Read(int64_t begin, std::span<float> out, const CudaStream& stream) const;
  absl::Status Write(int64_t begin, std::span<const float> values, const CudaStream& stream);

  // [begin, begin + count) in fp32 on the device, to be changed there and stored again: in fp32 the
  // array itself. count is at most kPart; Load's pointer holds until the next call.
  static constexpr int64_t kPart = int64_t{1} << 22;
  absl::StatusOr<float*> Load(int64_t begin, int64_t count, const CudaStream& stream) const;
  absl::Status Store(int64_t begin, int64_t count, const CudaStream& stream);

 private:
  const ParameterLayout* layout_ = nullptr;
  ComputeType type_ = ComputeType::kFloat32;
  DeviceBuffer<float> floats_;
  DeviceBuffer<BFloat16> high_;
  DeviceBuffer<uint16_t> low_;
  DeviceBuffer<float> vectors_;
  DeviceBuffer<MasterRange> ranges_;  // of vectors_
  DeviceBuffer<float> staging_;       // [kPart]
  std::vector<int64_t> places_;       // in vectors_, by slot; -1: a matrix
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_CUDA_PARAMETERS_H_
