// The three products of a linear layer in training, by cublasLt:
//   forward       y = x W^T + b                   x [rows, inputs], W [outputs, inputs]
//   input         dx = dy W
//   weight        dW = dy^T x, or dW += dy^T x    dW in fp32
// in bf16 with fp32 sums or in fp32 (no TF32). The algorithm is the first of the library's
// heuristic, not the fastest of a timing: the same library on the same kind of device gives the
// same bits in every process. Plans are cached per shape. One thread, one stream at a time (all
// products share the workspace).
#ifndef HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_
#define HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/cuda/stream.h"
#include "common/status/status.h"
#include "kernels/base/types.h"

namespace hanlin {

class CudaTrainProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  // FAILED_PRECONDITION when libcublasLt.so.13 cannot be opened; the message names it.
  static absl::StatusOr<std::unique_ptr<CudaTrainProducts>> Create();
  ~CudaTrainProducts();

  struct Shape {
    ComputeType type = ComputeType::kBFloat16;
    int64_t rows = 0;
    int64_t outputs = 0;
    int64_t inputs = 0;
  };

  // Put a product into the stream; all matrices are dense and on the device, of shape.type but for
  // dweight. UNIMPLEMENTED when cublasLt knows no algorithm for shape and alignment.
  // `bias` [outputs] of shape.type, or null.
  absl::Status Forward(const Shape& shape, const void* x, const void* weight, const void* bias,
                       void* y, const CudaStream& stream);
  absl::Status Input(const Shape& shape, const void* dy, const void* weight, void* dx,
                     const CudaStream& stream);
  // Without `accumulate` dweight is overwritten and need not have been cleared.
  absl::Status Weight(const Shape& shape, const void* dy, const void* x, float* dweight,
                      bool accumulate, const CudaStream& stream);

 private:
  struct Impl;
  explicit CudaTrainProducts(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_
