// See cross_entropy.h.
#include "kernels/loss/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/isa.h"
#include "kernels/loss/cpu/cross_entropy_kernels.h"

namespace hanlin {
namespace {

// Column of the label in this shard, -1 when it is another's.
int64_t LocalLabel(const CrossEntropyParams& p, int64_t row) {
  const int64_t label = p.labels[row] - p.vocabulary_begin;
  return label >= 0 && label < p.vocabulary_size ? label : -1;
}

}  // namespace

void CrossEntropyStats(const CrossEntropyParams& p, CrossEntropyStat* stats, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCrossEntropyKernels);
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* const row = p.logits + r * p.vocabulary_size;
      const int64_t label = LocalLabel(p, r);
      stats[r].target = label >= 0 ? row[label] : 0.0f;
      kernels.stats(row, p.vocabulary_size, &stats[r].maximum, &stats[r].sum);
    }
  });
}

void JoinStats(const CrossEntropyStat* stats, int64_t rows, int shards, float* log_sum,
               float* loss) {
  for (int64_t r = 0; r < rows; ++r) {
    const CrossEntropyStat* const row = stats + r * shards;
    float maximum = row[0].maximum;
    for (int i = 1; i < shards; ++i) maximum = std::max(maximum, row[i].maximum);
    float sum = 0, target = 0;
    for (int i = 0; i < shards; ++i) {
      sum += row[i].sum * std::exp(row[i].maximum - maximum);
      target += row[i].target;
    }
    log_sum[r] = maximum + std::log(sum);
    loss[r] = log_sum[r] - target;
  }
}

void CrossEntropyGradient(const CrossEntropyParams& p, const float* log_sum, const float* weights,
                          Array gradient, ThreadPool& pool) {
  const auto& kernels = HANLIN_ACTIVE_KERNELS(kCrossEntropyKernels);
  pool.ParallelFor(p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * p.vocabulary_size;
      void* const row = gradient.From(at).data;
      if (weights[r] == 0) {
        std::memset(row, 0, p.vocabulary_size * SizeOf(gradient.type));
        continue;
      }
      kernels.gradient(p.logits + at, p.vocabulary_size, log_sum[r], weights[r], LocalLabel(p, r),
                       row, gradient.type);
    }
  });
}

}  // namespace hanlin
