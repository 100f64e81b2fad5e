// Token plus position embedding on row-major tables, forward and backward, for training. Under
// tensor parallelism each rank holds a range of the vocabulary; rows of other ranks' ids count as
// zeros here and get no gradient. Gradients are added in ascending order of rows, per column, so no
// result depends on the number of threads.
#ifndef HANLIN_KERNELS_EMBED_CPU_EMBED_TRAIN_H_
#define HANLIN_KERNELS_EMBED_CPU_EMBED_TRAIN_H_

#include <cstdint>

#include "common/threading/thread_pool.h"

namespace hanlin {

struct EmbedTrainParams {
  int64_t rows = 0;
  int64_t width = 0;
  const int32_t* ids = nullptr;        // [rows]
  const int32_t* positions = nullptr;  // [rows], each below the position table's rows
  int64_t vocabulary_begin = 0;        // first id of this shard
  int64_t vocabulary_size = 0;         // of this shard
};

// out[r] = table[ids[r] - vocabulary_begin] + position_table[positions[r]]; a null position_table
// counts as zeros.
void EmbedTrain(const EmbedTrainParams& params, const float* table, const float* position_table,
                float* out, ThreadPool& pool);

// dtable[ids[r] - vocabulary_begin] += dout[r], dposition_table[positions[r]] += dout[r]
void EmbedBackward(const EmbedTrainParams& params, const float* dout, float* dtable,
                   float* dposition_table, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_EMBED_CPU_EMBED_TRAIN_H_
