// Decode linear layer y = epilogue(prologue(x) W^T + bias) for 1 to 4 rows of x: bound by reading
// W. Every warp streams its pieces of W through a ring of bulk copies; the first copies are issued
// before the wait for the kernel ahead (programmatic dependent launch), so the memory system does
// not idle between layers. Sums are fp32, reduced in a fixed order: the same call gives the same
// bits.
#ifndef HANLIN_KERNELS_GEMV_CUDA_GEMV_H_
#define HANLIN_KERNELS_GEMV_CUDA_GEMV_H_

#include "common/status/status.h"
#include "kernels/gemv/cuda/gemv_params.h"

namespace hanlin {

// Pure function of the shape and of the device. INVALID_ARGUMENT for shapes that the kernel does
// not do: k not a multiple of 8, a batch out of range, inputs that do not fit in shared memory.
absl::StatusOr<GemvPlan> PlanGemv(int64_t n, int64_t k, int batch, int multiprocessors,
                                  size_t shared_memory_per_block);

// Checks `params` and puts the kernel into the stream; neither allocates nor waits, and may be
// captured. `plan` is PlanGemv's for the same n, k and batch.
absl::Status Gemv(const GemvParams& params, const GemvPlan& plan, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMV_CUDA_GEMV_H_
