// What a linear layer does with r = x W^T + bias before it is stored. Shared by every CUDA product
// (gemv, skinny, cublasLt), so that a step may take any of them for a layer.
#ifndef HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_H_
#define HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_H_

#include <cstdint>

namespace hanlin {

enum class LinearEpilogue : uint8_t {
  kNone,      // y (type of W) = r
  kGeluTanh,  // y (type of W) = 0.5 r (1 + tanh(sqrt(2 / pi) (r + 0.044715 r^3)))
  kGeluErf,   // y (type of W) = 0.5 r (1 + erf(r / sqrt 2))
  kResidual,  // y (fp32) += r
  kFloat32,   // y (fp32) = r, e.g. logits
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_H_
