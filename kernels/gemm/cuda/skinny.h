// Linear layer for a small batch, y = epilogue(x W^T + bias) in bf16 with fp32 sums: W is the wide
// operand of the tensor cores and is streamed once, at the rate memory gives. A block multiplies up
// to 128 rows of W by up to 128 rows of x; where n is small, the blocks of a cluster share k and
// add their sums through each other's shared memory. The first copies of W are issued before the
// wait for the kernel ahead (programmatic dependent launch).
//
// Batch-invariant: an output is summed in an order that depends on (n, k) and the device alone.
// Any m works, by column tiles of 128; beyond about 64 rows cublasLt is faster.
#ifndef HANLIN_KERNELS_GEMM_CUDA_SKINNY_H_
#define HANLIN_KERNELS_GEMM_CUDA_SKINNY_H_

#include "common/status/status.h"
#include "kernels/gemm/cuda/gemm_params.h"
#include "kernels/gemm/cuda/skinny_params.h"

namespace hanlin {

// Pure; `split` does not depend on m. INVALID_ARGUMENT for k that is not a multiple of 8 and for
// sizes out of range.
absl::StatusOr<SkinnyPlan> PlanSkinny(int64_t m, int64_t n, int64_t k, int multiprocessors);

// Checks `params` and puts the kernel into the stream; neither allocates nor waits, may be
// captured. `plan` is PlanSkinny's for the same m, n and k. weight and x are aligned to 16 bytes.
absl::Status SkinnyGemm(const GemmParams& params, const SkinnyPlan& plan, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_SKINNY_H_
