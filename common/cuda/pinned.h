// Page-locked host memory, which the device copies to and from without the processor, and events,
// which say when it has done so. Move-only; not thread-safe. Both wait for nothing when they end.
#ifndef HANLIN_COMMON_CUDA_PINNED_H_
#define HANLIN_COMMON_CUDA_PINNED_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <type_traits>

#include "common/cuda/status.h"
#include "common/cuda/stream.h"

namespace hanlin {

template <typename T>
class PinnedBuffer {
 public:
  // RESOURCE_EXHAUSTED when the host has no such memory. Contents are undefined.
  static absl::StatusOr<PinnedBuffer> Create(size_t count) {
    void* memory = nullptr;
    RETURN_IF_ERROR(CudaStatus(cudaHostAlloc(&memory, count * sizeof(T), cudaHostAllocDefault),
                               "pinned memory"));
    PinnedBuffer buffer;
    buffer.data_.reset(static_cast<T*>(memory));
    buffer.size_ = count;
    return buffer;
  }

  T* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* memory) const { cudaFreeHost(memory); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// A point in a stream. Without timing, hence cheap.
class CudaEvent {
 public:
  static absl::StatusOr<CudaEvent> Create() {
    cudaEvent_t raw = nullptr;
    RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&raw, cudaEventDisableTiming));
    CudaEvent event;
    event.event_.reset(raw);
    return event;
  }

  absl::Status Record(const CudaStream& stream) const {
    return CudaStatus(cudaEventRecord(event_.get(), stream.get()), "event");
  }
  // What comes into `stream` from here on waits for the work before the last Record.
  absl::Status HoldBack(const CudaStream& stream) const {
    return CudaStatus(cudaStreamWaitEvent(stream.get(), event_.get()), "joining of streams");
  }
  // Until the work before the last Record is done, which is at once when there was none. Spins.
  absl::Status Wait() const {
    return CudaStatus(cudaEventSynchronize(event_.get()), "work of the stream");
  }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Destroy> event_;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_PINNED_H_
