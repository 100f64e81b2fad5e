// One linear layer y = epilogue(x W^T + bias) on the device, whatever computes it. Plain data.
#ifndef HANLIN_KERNELS_GEMM_CUDA_GEMM_PARAMS_H_
#define HANLIN_KERNELS_GEMM_CUDA_GEMM_PARAMS_H_

#include <cstdint>

#include "kernels/base/cuda/l2_prefetch.h"
#include "kernels/base/cuda/linear_epilogue.h"
#include "kernels/base/types.h"

namespace hanlin {

struct GemmParams {
  int64_t m = 0;                              // rows of x and y
  int64_t n = 0;                              // outputs
  int64_t k = 0;                              // inputs
  ComputeType type = ComputeType::kBFloat16;  // of x and W; sums are fp32 (never TF32)
  const void* weight = nullptr;               // [n, k], dense; constant while kernels run
  const void* x = nullptr;                    // [m, k], dense
  const float* bias = nullptr;                // [n] or null; constant
  // The same bias rounded to bf16, [n]: cublasLt's own epilogues take a bias of the output's type.
  // Wanted where bias is there, the type is bf16 and the epilogue stores bf16; only cublasLt reads
  // it.
  const BFloat16* bias_bf16 = nullptr;
  LinearEpilogue epilogue = LinearEpilogue::kNone;
  void* y = nullptr;  // [m, n], dense
  L2Prefetch next;    // ignored by cublasLt
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CUDA_GEMM_PARAMS_H_
