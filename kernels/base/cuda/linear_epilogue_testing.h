// For tests of products: what an epilogue makes of a sum, in double.
#ifndef HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_TESTING_H_
#define HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_TESTING_H_

#include <cmath>

#include "kernels/base/cuda/linear_epilogue.h"

namespace hanlin {

// `r` includes the bias; `residual` is what y held.
inline double ApplyEpilogue(LinearEpilogue epilogue, double r, double residual) {
  switch (epilogue) {
    case LinearEpilogue::kGeluTanh:
      return 0.5 * r * (1 + std::tanh(0.7978845608 * (r + 0.044715 * r * r * r)));
    case LinearEpilogue::kGeluErf:
      return 0.5 * r * (1 + std::erf(r / std::sqrt(2.0)));
    case LinearEpilogue::kResidual:
      return residual + r;
    default:
      return r;
  }
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_LINEAR_EPILOGUE_TESTING_H_
