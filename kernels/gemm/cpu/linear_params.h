// Parameters of the linear layer: plain data, shared by linear.h and the kernels behind it.
#ifndef HANLIN_KERNELS_GEMM_CPU_LINEAR_PARAMS_H_
#define HANLIN_KERNELS_GEMM_CPU_LINEAR_PARAMS_H_

#include "kernels/base/types.h"

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

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_LINEAR_PARAMS_H_
