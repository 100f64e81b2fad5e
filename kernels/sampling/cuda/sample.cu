// Sampling on Hopper: the logits of a row in the shared memory of a cluster.
#include "kernels/base/cuda/launch.cuh"
#include "kernels/sampling/cuda/sample_kernel.cuh"

namespace hanlin {

cudaError_t LaunchSample(const CudaSampleParams& params, const SamplePlan& plan,
                         cudaStream_t stream) {
  const LaunchShape shape = {.grid = dim3(params.rows * plan.cluster),
                             .block = dim3(kSampleThreads),
                             .shared_bytes = static_cast<size_t>(plan.shared_bytes),
                             .cluster = plan.cluster};
  return LaunchDependent(sampling::SampleKernel<true>, shape, stream, params, plan.cluster,
                         plan.slice);
}

}  // namespace hanlin
