// Streams, graphs and timing by events.
#include "common/cuda/stream.h"

#include <algorithm>
#include <vector>

#include "common/cuda/status.h"

namespace hanlin {

absl::StatusOr<CudaStream> CudaStream::Create() {
  cudaStream_t raw = nullptr;
  RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking));
  CudaStream stream;
  stream.stream_.reset(raw);
  return stream;
}

absl::Status CudaStream::Synchronize() const {
  return CudaStatus(cudaStreamSynchronize(get()), "work of the stream");
}

absl::StatusOr<CudaGraph> CudaGraph::Capture(const CudaStream& stream,
                                             const std::function<absl::Status()>& record) {
  RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  const absl::Status recorded = record();
  cudaGraph_t raw = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &raw);
  struct DestroyGraph {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  };
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph> owned(raw);
  if (!recorded.ok()) {
    cudaGetLastError();
    return recorded;
  }
  RETURN_IF_ERROR(CudaStatus(ended, "end of capture"));
  cudaGraphExec_t executable = nullptr;
  RETURN_IF_CUDA_ERROR(cudaGraphInstantiate(&executable, raw, 0));
  CudaGraph graph;
  graph.graph_.reset(executable);
  return graph;
}

absl::Status CudaGraph::Launch(const CudaStream& stream) const {
  return CudaStatus(cudaGraphLaunch(graph_.get(), stream.get()), "launch of a graph");
}

absl::StatusOr<double> MeasureMilliseconds(const CudaStream& stream, int samples, int repeats,
                                           const std::function<absl::Status()>& work) {
  struct DestroyEvent {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
  cudaEvent_t raw[2];
  RETURN_IF_CUDA_ERROR(cudaEventCreate(&raw[0]));
  const Event begin(raw[0]);
  RETURN_IF_CUDA_ERROR(cudaEventCreate(&raw[1]));
  const Event end(raw[1]);
  std::vector<double> times;
  for (int sample = -1; sample < samples; ++sample) {  // -1 warms up
    RETURN_IF_CUDA_ERROR(cudaEventRecord(begin.get(), stream.get()));
    for (int i = 0; i < repeats; ++i) RETURN_IF_ERROR(work());
    RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream.get()));
    RETURN_IF_ERROR(stream.Synchronize());
    float milliseconds = 0.0f;
    RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    if (sample >= 0) times.push_back(static_cast<double>(milliseconds) / repeats);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace hanlin
