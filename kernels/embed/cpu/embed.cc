// One unpacked row of the table per token: a strided read, short next to one linear layer.
#include "kernels/embed/cpu/embed.h"

#include <algorithm>

namespace hanlin {

void Embed(const EmbedParams& params, ThreadPool& pool) {
  const int64_t width = params.table.k;
  pool.ParallelFor(params.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* out = params.out + r * width;
      const int64_t row = params.ids[r] - params.vocabulary_begin;
      if (row >= 0 && row < params.table.n) {
        params.table.UnpackRow(row, out);
      } else {
        std::fill_n(out, width, 0.0f);
      }
      if (params.position_table == nullptr) continue;
      const float* position = params.position_table + params.positions[r] * width;
      for (int64_t i = 0; i < width; ++i) out[i] += position[i];
    }
  });
}

}  // namespace hanlin
