// Spreads elements, rows or columns over the pool; elementwise_simd.cc does the work.
#include "kernels/elementwise/cpu/elementwise.h"

#include <algorithm>

#include "kernels/base/isa.h"
#include "kernels/elementwise/cpu/elementwise_kernels.h"

namespace hanlin {
namespace {

constexpr int64_t kChunk = 4096;  // elements a task takes at once, a multiple of the vector width

// body(begin, count) over [0, count) in chunks.
template <typename Body>
void ForChunks(int64_t count, ThreadPool& pool, Body body) {
  pool.ParallelFor((count + kChunk - 1) / kChunk, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kChunk;
    body(first, std::min(count, end * kChunk) - first);
  });
}

}  // namespace

void Gelu(GeluForm form, ConstArray x, int64_t count, Array y, ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  ForChunks(count, pool, [&](int64_t begin, int64_t n) {
    kernels.gelu(form == GeluForm::kErf, x.From(begin).data, n, y.From(begin).data, y.type);
  });
}

void GeluBackward(GeluForm form, const float* x, const float* dy, int64_t count, float* dx,
                  ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  ForChunks(count, pool, [&](int64_t begin, int64_t n) {
    kernels.gelu_backward(form == GeluForm::kErf, x + begin, dy + begin, n, dx + begin);
  });
}

void DropoutAdd(const DropoutAddParams& p, ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * p.width;
      kernels.dropout_add({p.dropout, p.dropout.first_row + static_cast<uint32_t>(r), p.width,
                           p.x + at, p.bias, p.base == nullptr ? nullptr : p.base + at,
                           p.y.From(at).data, p.y.type});
    }
  });
}

void AddColumnSums(const float* x, int64_t rows, int64_t width, float* sums, ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  constexpr int64_t kColumns = 64;
  pool.ParallelFor((width + kColumns - 1) / kColumns, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kColumns;
    const int64_t count = std::min(width, end * kColumns) - first;
    for (int64_t r = 0; r < rows; ++r) kernels.add(x + r * width + first, count, sums + first);
  });
}

void AddInPlace(const float* x, int64_t count, float* y, ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  ForChunks(count, pool, [&](int64_t begin, int64_t n) { kernels.add(x + begin, n, y + begin); });
}

void Scale(float factor, int64_t count, float* y, ThreadPool& pool) {
  const ElementwiseKernels& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  ForChunks(count, pool, [&](int64_t begin, int64_t n) { kernels.scale(factor, n, y + begin); });
}

}  // namespace hanlin
