// Streams and captured graphs with owners. A stream orders its work; one thread at a time may use a
// CudaStream or launch a CudaGraph. Both end when their owner does, without waiting for the work.
#ifndef HANLIN_COMMON_CUDA_STREAM_H_
#define HANLIN_COMMON_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <type_traits>

#include "common/status/status.h"

namespace hanlin {

class CudaStream {
 public:
  static absl::StatusOr<CudaStream> Create();

  cudaStream_t get() const { return stream_.get(); }
  // Waits for everything in the stream; reports what a kernel did wrong, too.
  absl::Status Synchronize() const;

 private:
  struct Destroy {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Destroy> stream_;
};

// Everything that a function puts into a stream, replayed by one launch.
class CudaGraph {
 public:
  // Runs `record` with `stream` in capture mode; nothing is executed. An error of `record` ends the
  // capture and is returned.
  static absl::StatusOr<CudaGraph> Capture(const CudaStream& stream,
                                           const std::function<absl::Status()>& record);

  absl::Status Launch(const CudaStream& stream) const;

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy> graph_;
};

// Milliseconds that `work` takes in the stream: the median of `samples` runs of `repeats` calls
// each, after one warm-up run. For benchmarks.
absl::StatusOr<double> MeasureMilliseconds(const CudaStream& stream, int samples, int repeats,
                                           const std::function<absl::Status()>& work);

}  // namespace hanlin

#endif  // HANLIN_COMMON_CUDA_STREAM_H_
