// Linear layer y = epilogue(x W^T) on a PackedMatrix, for any number of rows: decode (GEMV) and
// prefill (GEMM) are the same micro-kernel with more or fewer rows in registers. Batch-invariant:
// every output element is one accumulator that walks k from 0 up, whatever m, the tile, the thread
// count or the neighbours; a row's result is the same bits alone and in a batch (under one Isa).
// Sums are fp32. Parallel over panels of 16 outputs with a static partition.
#ifndef HANLIN_KERNELS_GEMM_CPU_LINEAR_H_
#define HANLIN_KERNELS_GEMM_CPU_LINEAR_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"
#include "kernels/gemm/cpu/packed_matrix.h"

namespace hanlin {

enum class Activation : uint8_t {
  kNone,
  kGeluTanh,  // x / (1 + exp(-2u)), u = 0.79788456 x (1 + 0.044715 x^2): Megatron, "gelu_new"
  kGeluErf,   // 0.5 x (1 + erf(x / sqrt 2)): torch's gelu
};

// y[r][c] = activation(sum_k x[r][k] W[c][k] + bias[c]) + residual[r][c], rounded to y_type.
struct LinearParams {
  int64_t m = 0;                // rows of x and y
  const void* x = nullptr;      // [m, k] in the matrix's type (fp32 or bf16)
  int64_t x_stride = 0;         // elements from row to row
  const float* bias = nullptr;  // [n] or null
  Activation activation = Activation::kNone;
  const float* residual = nullptr;  // [m, n] or null; may be y itself (kFloat32)
  int64_t residual_stride = 0;      // elements
  void* y = nullptr;                // [m, n]; must not overlap x
  int64_t y_stride = 0;             // elements
  ComputeType y_type = ComputeType::kFloat32;
};

void Linear(const PackedMatrix& w, const LinearParams& params, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_LINEAR_H_
