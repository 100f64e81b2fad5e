// Token plus position embedding on the device: x[r] = table[id] + position_table[position], fp32.
// Ids are read on the device, so a step can start from what the sampler of the step before drew
// without the host seeing it. Programmatic dependent launch; neither allocates nor waits; may be
// captured.
#ifndef HANLIN_KERNELS_EMBED_CUDA_EMBED_H_
#define HANLIN_KERNELS_EMBED_CUDA_EMBED_H_

#include "common/status/status.h"
#include "kernels/embed/cuda/embed_params.h"

namespace hanlin {

// INVALID_ARGUMENT for sizes out of range and missing pointers.
absl::Status CudaEmbed(const CudaEmbedParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CUDA_EMBED_H_
