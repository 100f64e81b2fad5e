// The block and packing kernels behind matmul.h. T is float or BFloat16, a step one k in fp32 and a
// pair of k in bf16: 32 bits an element either way.
#ifndef HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_
#define HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_

#include "kernels/base/dispatch.h"
#include "kernels/base/types.h"
#include "kernels/gemm/cpu/matmul_epilogue.h"

namespace hanlin {

// `rows` rows of c times one panel of up to `width` columns, over one block of k.
template <typename T>
struct MatMulBlock {
  int64_t rows;
  int64_t columns;  // of the panel, <= width
  int64_t steps;    // a multiple of step_multiple
  const T* a;       // step s of row r at a[r * a_row + s * (elements of a step)]
  int64_t a_row;
  const T* b;         // [steps][width], zeros behind the last column
  const float* bias;  // null or what is added to c before the first step
  bool accumulate;
  void* c;  // of c_type
  ComputeType c_type;
  int64_t c_stride;
  MatMulEpilogue epilogue;
  void* other;  // of c_type, c_stride apart
};

// To panel[steps][width] with zeros behind the last line and the last k; a line is a row of op(a)
// or a column of op(b).
template <typename T>
struct MatMulPack {
  int64_t k;
  int64_t steps;  // at least what k takes
  int64_t lines;
  const void* from;  // of from_type; what T is, or kFloat32
  ComputeType from_type;
  int64_t stride;
  int64_t width;  // a multiple of 16
  T* panel;
  float* sums;  // [lines, rounded up to 16] or null: pack_rows adds the sum of each line as packed
};

template <typename T>
struct MatMulKernelsOf {
  int width;          // of a panel
  int tile_rows;      // rows that are multiplied together; fewer take longer
  int most_steps;     // of a block whose sums can wait in c; at most kMatMulDepth
  int step_multiple;  // what steps are rounded up to
  void (*enter)();    // what a thread calls before and after its blocks; or null
  void (*leave)();
  void (*block)(const MatMulBlock<T>& block);
  void (*pack_k)(const MatMulPack<T>& pack);      // element (k, line) at from[k * stride + line]
  void (*pack_lines)(const MatMulPack<T>& pack);  // element (k, line) at from[line * stride + k]
  // pack_k of op(a), but to panel[lines][width]: a line's steps behind each other. Writes whole
  // vectors: 16 lines and 16 steps.
  void (*pack_rows)(const MatMulPack<T>& pack);
  // to[0, k rounded up to a multiple of 32) = from[0, k), zeros behind; null in fp32.
  void (*round)(const float* from, int64_t k, BFloat16* to);
};

struct MatMulKernels {
  MatMulKernelsOf<float> float32;
  MatMulKernelsOf<BFloat16> bfloat16;
};
HANLIN_DECLARE_KERNELS(MatMulKernels, kMatMulKernels)

#if defined(__x86_64__)
namespace simd_amx {
extern const MatMulKernelsOf<BFloat16> kMatMulKernels;
}
#endif

}  // namespace hanlin

#endif  // HANLIN_KERNELS_GEMM_CPU_MATMUL_KERNELS_H_
