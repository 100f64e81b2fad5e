// Sampling on every GPU, one block a row with its logits in global memory, and the kernel that
// counts ids.
#include "kernels/base/cuda/launch.cuh"
#include "kernels/sampling/cuda/sample_kernel.cuh"

namespace hanlin {
namespace {

// One block: it clears and counts in turn.
__global__ void CountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts) {
  for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int32_t id = ids[i];
    if (id < 0 || id >= vocabulary) continue;
    // A half of an aligned word; a count stays below 65536, the longest sequence.
    const auto address = reinterpret_cast<uintptr_t>(counts + id);
    atomicAdd(reinterpret_cast<unsigned*>(address & ~uintptr_t{3}),
              (address & 2) != 0 ? 0x10000u : 1u);
  }
}

}  // namespace

cudaError_t LaunchPlainSample(const CudaSampleParams& params, const SamplePlan& plan,
                              cudaStream_t stream) {
  const LaunchShape shape = {.grid = dim3(params.rows),
                             .block = dim3(kSampleThreads),
                             .shared_bytes = static_cast<size_t>(plan.shared_bytes)};
  return LaunchDependent(sampling::SampleKernel<false>, shape, stream, params, 1, plan.slice);
}

cudaError_t LaunchCountIds(const int32_t* ids, int32_t count, int32_t vocabulary, uint16_t* counts,
                           cudaStream_t stream) {
  CountIds<<<1, 1024, 0, stream>>>(ids, count, vocabulary, counts);
  return cudaGetLastError();
}

}  // namespace hanlin
