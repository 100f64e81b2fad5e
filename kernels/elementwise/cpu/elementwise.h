// What a training step does element by element: GELU, dropout, sums over rows.
// Parallel and deterministic: no result depends on the number of threads.
//
// Dropout is a pure function of (seed, step, site, row, column), so forward and backward, a rerun,
// a resumed run and every rank of a tensor-parallel group draw the same mask and nothing is stored:
//   counter = (column / 64 * 8 + column % 16 / 2, row, site, step),  key = (seed low, seed high)
//   word = word column / 16 % 4 of Philox4x32-7(counter, key)
//   r    = bits 0 to 14 of the word for an even column, 16 to 30 for an odd one
//   kept <=> r * 2^-15 >= rate;  a kept element is multiplied by 1 / (1 - rate)
// The rate counts as the next multiple of 2^-15. Drawing is most of what dropout costs, so a
// counter serves 8 elements, with the 7 rounds that pass BigCrush (Salmon et al., SC11).
#ifndef HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_H_
#define HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/array.h"
#include "kernels/elementwise/cpu/dropout_params.h"

namespace hanlin {

enum class GeluForm { kTanh, kErf };

// x and y of one type. (In a training step GELU and its derivative are epilogues of products, see
// matmul.h; this computes again what was not kept, to the same bits.)
void Gelu(GeluForm form, ConstArray x, int64_t count, Array y, ThreadPool& pool);

// dx = dy * gelu'(x); dx may be dy. What the epilogue and the device's kernels are measured by.
void GeluBackward(GeluForm form, const float* x, const float* dy, int64_t count, float* dx,
                  ThreadPool& pool);

// y[r][c] = base[r][c] + dropout(x[r][c] + bias[c]); rows are numbered from dropout.first_row.
struct DropoutAddParams {
  int64_t rows = 0;
  int64_t width = 0;
  const float* x = nullptr;     // [rows, width]
  const float* bias = nullptr;  // [width] or null
  const float* base = nullptr;  // [rows, width] or null (zeros)
  Array y;                      // [rows, width]; may be x or base
  DropoutParams dropout;
};
void DropoutAdd(const DropoutAddParams& params, ThreadPool& pool);

// sums[c] += the sum over rows, in ascending order, of x[r][c]. (The gradients of biases are sums
// of products' operands, see matmul.h; this is what the device's kernels are measured by.)
void AddColumnSums(const float* x, int64_t rows, int64_t width, float* sums, ThreadPool& pool);

// y += x
void AddInPlace(const float* x, int64_t count, float* y, ThreadPool& pool);

// y *= factor
void Scale(float factor, int64_t count, float* y, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_ELEMENTWISE_CPU_ELEMENTWISE_H_
