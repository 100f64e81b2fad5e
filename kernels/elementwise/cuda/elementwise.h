// What a training step does element by element on the device, the law of
// kernels/elementwise/cpu/elementwise.h: GELU and its derivative, dropout, sums over rows. Arrays
// of `type`, aligned to 16 bytes; sums are fp32. Deterministic; neither allocates nor waits; may be
// captured. INVALID_ARGUMENT for counts and widths that are not multiples of 8.
#ifndef HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_H_
#define HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_H_

#include <cstddef>

#include "common/status/status.h"
#include "kernels/elementwise/cpu/elementwise.h"
#include "kernels/elementwise/cuda/elementwise_launch.h"

namespace hanlin {

absl::Status CudaGelu(GeluForm form, ComputeType type, const void* x, int64_t count, void* y,
                      cudaStream_t stream);
// y = dropout(x) [rows, width]; y may be x.
absl::Status CudaDropout(const DropoutParams& dropout, ComputeType type, const void* x,
                         int64_t rows, int64_t width, void* y, cudaStream_t stream);

// sums[c] += the sum over rows of x[r][c]. `workspace`: CudaColumnSumsBytes.
absl::Status CudaAddColumnSums(ComputeType type, const void* x, int64_t rows, int64_t width,
                               float* sums, void* workspace, cudaStream_t stream);
size_t CudaColumnSumsBytes(ComputeType type, int64_t rows, int64_t width);

// dx = dy * gelu'(x) [rows, width]; dx may be dy. What is stored is also added to the sums of its
// columns: a bias's gradient. `workspace` as above.
absl::Status CudaGeluBackwardSums(GeluForm form, ComputeType type, const void* x, const void* dy,
                                  int64_t rows, int64_t width, void* dx, float* sums,
                                  void* workspace, cudaStream_t stream);
// The same of dropout.
absl::Status CudaDropoutSums(const DropoutParams& dropout, ComputeType type, const void* x,
                             int64_t rows, int64_t width, void* y, float* sums, void* workspace,
                             cudaStream_t stream);

// bf16 to fp32 and back.
absl::Status CudaWiden(const void* x, int64_t count, float* y, cudaStream_t stream);
absl::Status CudaNarrow(const float* x, int64_t count, void* y, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CUDA_ELEMENTWISE_H_
