// Spreads rows (forward, dx) and columns (dweight, dbias) over the pool.
#include "kernels/norm/cpu/layer_norm_backward.h"

#include <algorithm>

#include "kernels/base/isa.h"
#include "kernels/norm/cpu/norm_backward_kernels.h"

namespace hanlin {

void LayerNormTrain(const LayerNormTrainParams& p, ThreadPool& pool) {
  const NormBackwardKernels& kernels = HANLIN_ACTIVE_KERNELS(kNormBackwardKernels);
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.forward(p.x + r * p.width, p.weight, p.bias, p.width, p.epsilon, p.mean + r,
                      p.rstd + r, p.y.From(r * p.width).data, p.y.type);
    }
  });
}

void LayerNormBackward(const LayerNormBackwardParams& p, ThreadPool& pool) {
  const NormBackwardKernels& kernels = HANLIN_ACTIVE_KERNELS(kNormBackwardKernels);
  constexpr int64_t kColumns = 64;
  // Columns and rows in two loops: each writes what no other thread writes.
  pool.ParallelFor((p.width + kColumns - 1) / kColumns, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kColumns;
    const int64_t count = std::min(p.width, end * kColumns) - first;
    for (int64_t r = 0; r < p.rows; ++r) {
      const int64_t at = r * p.width + first;
      kernels.dweight(p.x + at, p.dy + at, count, p.mean[r], p.rstd[r], p.dweight + first,
                      p.dbias + first);
    }
  });
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * p.width;
      kernels.dx(p.x + at, p.weight, p.dy + at, p.width, p.mean[r], p.rstd[r], p.dx + at);
    }
  });
}

}  // namespace hanlin
