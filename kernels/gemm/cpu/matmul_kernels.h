// The block kernels behind matmul.h.
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"

namespace hanlin {

// `rows` rows of c times one panel of up to `width` columns, over one block of k.
struct MatMulBlock {
  int64_t rows;
  int64_t columns;  // of the panel, <= width
  int64_t k;
  const float* a;  // element (row, k) at a[row * a_row + k * a_column]
  int64_t a_row;
  int64_t a_column;
  const float* b;  // [k][width], zeros behind the last column
  const float* bias;
  bool accumulate;
  float* c;
  int64_t c_stride;
};

// Element (k, column) of op(b) at b[k * b_row + column * b_column], to panel[k][width].
struct MatMulPack {
  int64_t k;
  int64_t columns;
  const float* b;
  int64_t b_row;
  int64_t b_column;
  float* panel;
};

struct MatMulKernels {
  int width;
  void (*block)(const MatMulBlock& block);
  void (*pack)(const MatMulPack& pack);
};
HANLIN_DECLARE_KERNELS(MatMulKernels, kMatMulKernels)

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_
