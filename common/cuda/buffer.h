// An array in device memory, freed with its owner. Move-only; not thread-safe. The copies wait
// until they are done and are meant for set-up and tests, not for a step.
#ifndef HANLIN_COMMON_CUDA_BUFFER_H_
#define HANLIN_COMMON_CUDA_BUFFER_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "common/cuda/status.h"

namespace hanlin {

template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) cudaFree(data_);
  }

  // RESOURCE_EXHAUSTED says how much was wanted and how much is free. Contents are undefined.
  static absl::StatusOr<DeviceBuffer> Create(size_t count) {
    DeviceBuffer buffer;
    if (count == 0) return buffer;
    size_t free = 0, total = 0;
    RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free, &total));
    if (count > std::numeric_limits<size_t>::max() / sizeof(T) ||
        cudaMalloc(reinterpret_cast<void**>(&buffer.data_), count * sizeof(T)) != cudaSuccess) {
      cudaGetLastError();
      buffer.data_ = nullptr;
      return ResourceExhausted(
          "{} elements of {} bytes wanted on the device, {} of {} bytes are free", count, sizeof(T),
          free, total);
    }
    buffer.size_ = count;
    return buffer;
  }

  static absl::StatusOr<DeviceBuffer> From(std::span<const T> source) {
    ASSIGN_OR_RETURN(DeviceBuffer buffer, Create(source.size()));
    RETURN_IF_ERROR(buffer.CopyFrom(source));
    return buffer;
  }

  // `source` must have size() elements.
  absl::Status CopyFrom(std::span<const T> source) {
    if (source.size() != size_) {
      return InvalidArgument("copy of {} elements into {}", source.size(), size_);
    }
    RETURN_IF_CUDA_ERROR(
        cudaMemcpy(data_, source.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
    // From pageable memory the call may return when the bytes are staged; other streams would race.
    return CudaStatus(cudaStreamSynchronize(nullptr), "copy to the device");
  }

  absl::StatusOr<std::vector<T>> ToHost() const {
    std::vector<T> result(size_);
    RETURN_IF_CUDA_ERROR(
        cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }

  absl::Status Clear() { return CudaStatus(cudaMemset(data_, 0, size_ * sizeof(T)), "clear"); }

  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_BUFFER_H_
