// What matmul.h does with a finished element of c beside storing it.
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_EPILOGUE_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_EPILOGUE_H_

#include "kernels/base/types.h"

namespace hanlin {

// c[i] = v and other[i] = GELU(c[i]), or c[i] = v GELU'(other[i]).
enum class MatMulEpilogue : uint8_t {
  kNone,
  kGeluTanh,
  kGeluErf,
  kGeluTanhBackward,
  kGeluErfBackward
};

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_EPILOGUE_H_
