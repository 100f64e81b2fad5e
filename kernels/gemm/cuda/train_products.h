// The three products of a linear layer in training, by cublasLt:
//   forward       y = x W^T + b (+ base)          x [rows, inputs], W [outputs, inputs]
//   input         dx = dy W
//   weight        dW = dy^T x, or dW += dy^T x    dW in fp32
// in bf16 with fp32 sums or in fp32 (no TF32). The algorithm of a large product of 64 n rows is the
// fastest of those that give the bits of the first of the library's heuristic (equal_bits.h),
// chosen at the first use of a shape, which then waits for the stream: the same library on the same
// kind of device gives the same bits in every process. Plans are cached per shape. One thread, one
// stream at a time (all products share the workspace).
#ifndef HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_
#define HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/cuda/stream.h"
#include "common/status/status.h"
#include "kernels/base/types.h"
#include "kernels/gemm/cuda/equal_bits.h"

namespace hanlin {

class CudaTrainProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  static constexpr int kCandidates = 32;

  // FAILED_PRECONDITION when libcublasLt.so.13 cannot be opened; the message names it. With one
  // candidate algorithm nothing is timed.
  static absl::StatusOr<std::unique_ptr<CudaTrainProducts>> Create(int candidates = kCandidates);
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
  // y = base + x W^T + b, rounded once; base [rows, outputs] of shape.type.
  absl::Status ForwardSum(const Shape& shape, const void* x, const void* weight, const void* bias,
                          const void* base, void* y, const CudaStream& stream);
  absl::Status Input(const Shape& shape, const void* dy, const void* weight, void* dx,
                     const CudaStream& stream);
  // Without `accumulate` dweight is overwritten and need not have been cleared.
  absl::Status Weight(const Shape& shape, const void* dy, const void* x, float* dweight,
                      bool accumulate, const CudaStream& stream);

  // Products with GELU in the tanh form, bf16 only; UNIMPLEMENTED otherwise.
  // up = x W^T + b, act = gelu of it before its rounding.
  absl::Status ForwardGelu(const Shape& shape, const void* x, const void* weight, const void* bias,
                           void* up, void* act, const CudaStream& stream);
  // dx = (dy W) gelu'(up), rounded once; up [rows, inputs].
  absl::Status InputGelu(const Shape& shape, const void* dy, const void* weight, const void* up,
                         void* dx, const CudaStream& stream);

  // How the algorithm of the last product was chosen, for benchmarks.
  const EqualBitsChoice& last_choice() const;

 private:
  struct Impl;
  explicit CudaTrainProducts(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_TRAIN_PRODUCTS_H_
