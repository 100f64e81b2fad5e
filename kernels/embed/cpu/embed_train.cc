// See embed_train.h.
#include "kernels/embed/cpu/embed_train.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/isa.h"
#include "kernels/elementwise/cpu/elementwise_kernels.h"

namespace hanlin {
namespace {

// Row of the shard's table, -1 when the id is another rank's.
int64_t LocalRow(const EmbedTrainParams& p, int64_t row) {
  const int64_t id = p.ids[row] - p.vocabulary_begin;
  return id >= 0 && id < p.vocabulary_size ? id : -1;
}

}  // namespace

void EmbedTrain(const EmbedTrainParams& p, const float* table, const float* position_table,
                float* out, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* const to = out + r * p.width;
      const int64_t id = LocalRow(p, r);
      if (id >= 0) {
        std::memcpy(to, table + id * p.width, p.width * sizeof(float));
      } else {
        std::memset(to, 0, p.width * sizeof(float));
      }
      if (position_table != nullptr) {
        kernels.add(position_table + p.positions[r] * p.width, p.width, to);
      }
    }
  });
}

void EmbedBackward(const EmbedTrainParams& p, const float* dout, float* dtable,
                   float* dposition_table, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kElementwiseKernels);
  constexpr int64_t kColumns = 64;
  pool.ParallelFor((p.width + kColumns - 1) / kColumns, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kColumns;
    const int64_t count = std::min(p.width, end * kColumns) - first;
    for (int64_t r = 0; r < p.rows; ++r) {
      const float* const from = dout + r * p.width + first;
      if (const int64_t id = LocalRow(p, r); id >= 0) {
        kernels.add(from, count, dtable + id * p.width + first);
      }
      kernels.add(from, count, dposition_table + p.positions[r] * p.width + first);
    }
  });
}

}  // namespace hanlin
