// Blocking of matmul.h: op(b) is packed kMatMulDepth x kColumnBlock at a time and shared by all
// threads, which then take (row block, panel) pairs.
#include "kernels/gemm/cpu/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/base/isa.h"
#include "kernels/gemm/cpu/matmul_kernels.h"

namespace hanlin {
namespace {

constexpr int64_t kColumnBlock = 1024;  // 1 MiB of packed b
constexpr int64_t kRowBlock = 96;       // 96 KiB of a beside a panel of 64 KiB: the L2 cache

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// `loop(count, body)` runs body(begin, end, thread) over [0, count).
template <typename Loop>
void Run(const MatMulParams& p, Loop loop) {
  const MatMulKernels& kernels = HANLIN_ACTIVE_KERNELS(kMatMulKernels);
  thread_local std::vector<float> packed_b;
  packed_b.resize(kColumnBlock * kMatMulDepth);
  float* const packed = packed_b.data();
  const int64_t width = kernels.width;
  const int64_t row_blocks = CeilDiv(p.m, kRowBlock);
  for (int64_t n = 0; n < p.n; n += kColumnBlock) {
    const int64_t columns = std::min(kColumnBlock, p.n - n);
    const int64_t panels = CeilDiv(columns, width);
    // k = 0 still writes c: the bias, or zeros.
    for (int64_t k = 0; k == 0 || k < p.k; k += kMatMulDepth) {
      const int64_t depth = std::min(kMatMulDepth, p.k - k);
      const bool last = k + depth >= p.k;
      loop(panels, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t column = n + i * width;
          const int64_t row_stride = p.b_transposed ? 1 : p.b_stride;
          const int64_t column_stride = p.b_transposed ? p.b_stride : 1;
          kernels.pack({depth, std::min(width, n + columns - column),
                        p.b + k * row_stride + column * column_stride, row_stride, column_stride,
                        packed + i * kMatMulDepth * width});
        }
      });
      loop(row_blocks * panels, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = i / panels * kRowBlock;
          const int64_t column = n + i % panels * width;
          const int64_t a_row = p.a_transposed ? 1 : p.a_stride;
          const int64_t a_column = p.a_transposed ? p.a_stride : 1;
          kernels.block({std::min(kRowBlock, p.m - row), std::min(width, n + columns - column),
                         depth, p.a + row * a_row + k * a_column, a_row, a_column,
                         packed + i % panels * kMatMulDepth * width,
                         last && p.bias != nullptr ? p.bias + column : nullptr,
                         p.accumulate || k > 0, p.c + row * p.c_stride + column, p.c_stride});
        }
      });
    }
  }
}

}  // namespace

void MatMul(const MatMulParams& params, ThreadPool& pool) {
  Run(params, [&pool](int64_t count, auto&& body) { pool.ParallelFor(count, body); });
}

void MatMulOnThisThread(const MatMulParams& params) {
  Run(params, [](int64_t count, auto&& body) { body(int64_t{0}, count, 0); });
}

}  // namespace hanlin
