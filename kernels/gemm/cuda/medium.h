// Linear layer for 65 to 128 rows, y = epilogue(x W^T + bias) in bf16 with fp32 sums. A block holds
// all rows of x, which weigh more than its rows of W: it multiplies few rows of W, or more of them
// by a part of k, when the blocks of a cluster add their sums through each other's shared memory. W
// is streamed once; its first copies are issued before the wait for the kernel ahead (programmatic
// dependent launch).
//
// Deterministic; an output's bits depend on the plan, that is on (n, k) and the device, but not
// on m. They are not those of skinny.h.
#ifndef HANLIN_KERNELS_GEMM_CUDA_MEDIUM_H_
#define HANLIN_KERNELS_GEMM_CUDA_MEDIUM_H_

#include <cuda_runtime_api.h>

#include "common/status/status.h"
#include "kernels/gemm/cuda/gemm_params.h"
#include "kernels/gemm/cuda/medium_params.h"

namespace hanlin {

// Pure. INVALID_ARGUMENT for odd n, k that is not a multiple of 8 and sizes out of range.
absl::StatusOr<MediumPlan> PlanMedium(int64_t n, int64_t k, int multiprocessors);

// As many stages as fit.
int MediumStages(int columns);

// Checks `params` and puts the kernel into the stream; neither allocates nor waits, may be
// captured. Up to kMediumRows rows; weight, x and y are aligned to 16 bytes.
absl::Status MediumGemm(const GemmParams& params, const MediumPlan& plan, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_MEDIUM_H_
