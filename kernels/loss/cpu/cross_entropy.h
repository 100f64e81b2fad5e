// Cross-entropy of a vocabulary shard and its gradient, in three steps so that tensor-parallel
// ranks can join in between; with one rank they follow each other directly. Per row r with label y:
//   1. CrossEntropyStats     (max, sum e^(x - max), x[y]) over this shard
//   2. JoinStats             the shards' numbers → log sum e^x and the loss, in rank order
//   3. CrossEntropyGradient  (e^(x[j] - log_sum) - [j = y]) * weight[r]
// A row of weight 0 has gradient 0 whatever its logits are, and its label need not be an id.
// Parallel over rows; a row's result depends on that row alone.
#ifndef HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_H_
#define HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_H_

#include <cstdint>

#include "common/threading/thread_pool.h"
#include "kernels/base/array.h"

namespace hanlin {

// What a shard knows about a row. `target` is 0 when the label is another shard's.
struct CrossEntropyStat {
  float maximum;
  float sum;
  float target;
};

struct CrossEntropyParams {
  int64_t rows = 0;
  int64_t vocabulary_begin = 0;     // first id of this shard
  int64_t vocabulary_size = 0;      // of this shard
  const float* logits = nullptr;    // [rows, vocabulary_size]
  const int32_t* labels = nullptr;  // [rows]
};

void CrossEntropyStats(const CrossEntropyParams& params, CrossEntropyStat* stats, ThreadPool& pool);

// stats [rows][shards]; log_sum and loss [rows].
void JoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
               float* loss);

// weights [rows], read as described above; gradient [rows, vocabulary_size], may be the logits.
void CrossEntropyGradient(const CrossEntropyParams& params, const float* log_sum,
                          const float* weights, Array gradient, ThreadPool& pool);

}  // namespace hanlin

#endif  // HANLIN_KERNELS_LOSS_CPU_CROSS_ENTROPY_H_
