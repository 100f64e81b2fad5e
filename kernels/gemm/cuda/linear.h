// The linear layers of a step on the device: picks gemv, the skinny or the medium product or
// cublasLt for each shape and runs it. This is what a model's forward pass calls.
//
//   m <= 2 (small products: 4), bf16   gemv (kernels/gemv/cuda); with a LayerNorm prologue the
//                                      caller runs it itself
//   m <= 64, bf16                      skinny product: W streamed once through tensor cores
//   m <= 128, n <= 32768, bf16         medium product: a block holds all of x
//   else, and always without Hopper    cublasLt
//
// In the batch-invariant mode every bf16 product takes the skinny kernel, whose sums depend on
// (n, k) alone: a row of y has the same bits whatever the other rows are and however many.
#ifndef HANLIN_KERNELS_GEMM_CUDA_LINEAR_H_
#define HANLIN_KERNELS_GEMM_CUDA_LINEAR_H_

#include <memory>

#include "common/cuda/device.h"
#include "common/cuda/stream.h"
#include "common/status/status.h"
#include "kernels/gemm/cuda/cublas_lt.h"
#include "kernels/gemm/cuda/gemm_params.h"

namespace hanlin {

enum class LinearPath : uint8_t { kGemv, kSkinny, kMedium, kCublasLt };

// Pure function of its arguments; on Hopper.
LinearPath SelectLinearPath(int64_t m, int64_t n, int64_t k, ComputeType type,
                            bool batch_invariant);

// FAILED_PRECONDITION where the batch-invariant mode is wanted and the device has it not: without
// Hopper products are cublasLt's, whose sums depend on the batch.
absl::Status CheckBatchInvariance(const CudaDevice& device, bool wanted);

// One thread at a time; calls on one stream, since cublasLt's workspace is shared by them.
class CudaLinear {
 public:
  struct Options {
    bool batch_invariant = false;
    CublasLt::Options cublas_lt;
  };

  // `device` is current. The workspace is allocated here; nothing is allocated later. Fails like
  // CheckBatchInvariance and CublasLt::Create.
  static absl::StatusOr<std::unique_ptr<CudaLinear>> Create(const CudaDevice& device,
                                                            const Options& options);

  LinearPath Select(int64_t m, int64_t n, int64_t k, ComputeType type) const {
    return hopper_ ? SelectLinearPath(m, n, k, type, batch_invariant_) : LinearPath::kCublasLt;
  }

  // Where cublasLt would run `params`: times its candidates once for (n, k, type, epilogue, bucket
  // of m) with the real buffers, whose y is then overwritten. Waits for the stream; never inside a
  // capture. Without it Run takes the heuristic's first algorithm.
  absl::Status Prepare(const GemmParams& params, const CudaStream& stream);

  // Puts the product into the stream; neither allocates nor waits, may be captured. x, W and y are
  // aligned to 16 bytes for gemv and skinny, and for cublasLt to be fast.
  absl::Status Run(const GemmParams& params, const CudaStream& stream);

 private:
  CudaLinear(const CudaDevice& device, bool batch_invariant, std::unique_ptr<CublasLt> cublas_lt);

  const bool hopper_;
  const int multiprocessors_;
  const size_t shared_memory_per_block_;
  const bool batch_invariant_;
  const std::unique_ptr<CublasLt> cublas_lt_;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_LINEAR_H_
