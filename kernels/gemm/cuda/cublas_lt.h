// Matrix products by cublasLt, which is opened at run time: y = epilogue(x W^T + bias) for any m, n
// and k, bf16 with fp32 sums or fp32 (no TF32). Plans are cached per exact shape; the algorithm
// is chosen per (n, k, type, epilogue, alignment) and bucket of m, so that a prefill of any length
// costs one look-up. One thread at a time, one stream at a time (all products share the workspace).
#ifndef HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_H_
#define HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_H_

#include <cstddef>
#include <memory>

#include "common/cuda/stream.h"
#include "common/status/status.h"
#include "kernels/gemm/cuda/gemm_params.h"

namespace hanlin {

class CublasLt {
 public:
  struct Options {
    size_t workspace_bytes = size_t{32} << 20;
    int candidates = 8;  // algorithms of the heuristic that Prepare times
  };

  // FAILED_PRECONDITION when libcublasLt.so.13 cannot be opened; the message names it.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Create(const Options& options);
  ~CublasLt();

  // Chooses the algorithm for the bucket of params.m by timing at params.m with the real buffers (y
  // is overwritten, for kResidual too). Waits for the stream; not inside a capture.
  absl::Status Prepare(const GemmParams& params, const CudaStream& stream);

  // Neither allocates on the device nor waits; may be captured. A bucket that was not prepared
  // takes the heuristic's first algorithm. UNIMPLEMENTED when cublasLt knows no algorithm for the
  // shape and alignment.
  absl::Status Run(const GemmParams& params, const CudaStream& stream);

 private:
  struct Impl;
  explicit CublasLt(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The largest m of the bucket that m belongs to: powers of two up to 128, then 3/4 of a power of
// two as well.
int64_t CublasLtBucket(int64_t m);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_CUBLAS_LT_H_
