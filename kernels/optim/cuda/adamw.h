// The optimizer's passes over flat arrays on the device, the law of kernels/optim/cpu/adamw.h.
// Deterministic; neither allocates nor waits.
#ifndef HANLIN_KERNELS_OPTIM_CUDA_ADAMW_H_
#define HANLIN_KERNELS_OPTIM_CUDA_ADAMW_H_

#include "common/status/status.h"
#include "kernels/optim/cpu/adamw.h"
#include "kernels/optim/cuda/adamw_params.h"

namespace hanlin {

// One step; of `params` the numbers count, not the arrays.
absl::Status CudaAdamW(const CudaAdamWArrays& arrays, const AdamWParams& params,
                       cudaStream_t stream);

// *sum (+)= the sum of squares, in double; `partials` [kSquareParts] on the device, like sum. x is
// aligned to 16 bytes and reaches up to the next multiple of 4 with zeros.
absl::Status CudaSumOfSquares(const float* x, int64_t count, bool add, double* partials,
                              double* sum, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_OPTIM_CUDA_ADAMW_H_
