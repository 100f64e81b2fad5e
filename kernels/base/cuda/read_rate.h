// The rate at which this GPU reads memory: the roofline that benchmarks of memory-bound kernels
// quote.
#ifndef HANLIN_KERNELS_BASE_CUDA_READ_RATE_H_
#define HANLIN_KERNELS_BASE_CUDA_READ_RATE_H_

#include "common/cuda/stream.h"

namespace hanlin {

// Bytes per second of plain coalesced reads over 4 GiB, best of six.
absl::StatusOr<double> MeasureReadRate(const CudaStream& stream);

// Fills [count] bf16 values with reproducible noise in [-scale, scale], asynchronously.
absl::Status FillRandomBFloat16(void* values, size_t count, float scale, const CudaStream& stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_READ_RATE_H_
