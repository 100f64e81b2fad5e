// The layers of a decode step at batch 1 in one kernel, for the family's models of 32 heads (1.3B,
// 2.7B) in bf16; decode_step_params.h says how. Neither allocates nor waits, may be captured; one
// step at a time on a DecodeStepExchange. Sums are fp32 in a fixed order: the same bits each time.
// Activations are rounded to bf16 where the separate kernels round them, and once more where the
// shares of a head's positions are exchanged.
#ifndef HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_H_
#define HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_H_

#include "common/cuda/device.h"
#include "common/status/status.h"
#include "kernels/decode_step/cuda/decode_step_params.h"

namespace hanlin {

// Whether the kernel does such a model on such a device.
bool HasDecodeStep(ComputeType type, int hidden, int heads, int ffn, int layers, int max_positions,
                   const CudaDevice& device);

// INVALID_ARGUMENT for other shapes and for missing or unaligned pointers.
absl::Status DecodeStep(const DecodeStepParams& params, cudaStream_t stream);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_DECODE_STEP_CUDA_DECODE_STEP_H_
