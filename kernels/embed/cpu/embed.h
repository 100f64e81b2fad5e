// Token plus position embedding. The token table is the packed matrix that the tied output layer
// multiplies with: weights are held once. Under tensor parallelism each rank holds a range of the
// vocabulary; rows of other ranks' ids get zeros here and are summed by the communicator. Parallel
// over rows.
#ifndef HANLIN_KERNELS_EMBED_CPU_EMBED_H_
#define HANLIN_KERNELS_EMBED_CPU_EMBED_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/gemm/cpu/packed_matrix.h"

namespace hanlin {

// out[r] = table[ids[r] - vocabulary_begin] (zeros outside this shard) +
// position_table[positions[r]]
struct EmbedParams {
  int64_t rows = 0;
  const int32_t* ids = nullptr;        // [rows]
  const int32_t* positions = nullptr;  // [rows], each below the position table's rows
  PackedMatrix table;                  // [vocabulary of this shard, width]
  int64_t vocabulary_begin = 0;        // first id of this shard
  const float* position_table =
      nullptr;           // [positions, width] or null (ranks other than 0 leave it out)
  float* out = nullptr;  // [rows, width], dense
};
void Embed(const EmbedParams& params, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CPU_EMBED_H_
