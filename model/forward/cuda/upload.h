// Copies a plan from pinned memory by a kernel: as the first node of a graph it costs a few
// microseconds less than a copy between the graphs. It does not start its successor early, so when
// that runs, the plan is there, also for what kernels read ahead of their dependency wait.
#ifndef HANLIN_MODEL_FORWARD_CUDA_UPLOAD_H_
#define HANLIN_MODEL_FORWARD_CUDA_UPLOAD_H_

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hanlin {

// `bytes`: a multiple of 16; both sides aligned likewise.
cudaError_t LaunchUpload(const void* pinned, void* device, size_t bytes, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_MODEL_FORWARD_CUDA_UPLOAD_H_
