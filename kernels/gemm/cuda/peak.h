// What a device reaches in a product that is large enough: what MFU is a share of.
#ifndef HANLIN_KERNELS_GEMM_CUDA_PEAK_H_
#define HANLIN_KERNELS_GEMM_CUDA_PEAK_H_

#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "common/status/status.h"
#include "kernels/base/types.h"

namespace hanlin {

// Floating-point operations a second of an 8192^3 product of `type`, by the fastest algorithm of
// cublasLt. Takes 384 or 768 MiB of memory while it runs, and waits.
absl::StatusOr<double> MeasurePeakFlops(ComputeType type, const CudaDevice& device,
                                        const CudaStream& stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_PEAK_H_
