// The heuristics of the medium product: of all plans the one that a small model of an H100 thinks
// the fastest. Its figures were measured there (docs/gpu_notes.md).
#include <algorithm>

#include "kernels/gemm/cuda/medium.h"

namespace hanlin {
namespace {

constexpr int kRingBytes = 224 << 10;

int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Blocks that run at once: clusters of four do not find places everywhere (30 do on an H100).
int64_t BlocksAtOnce(int split, int multiprocessors) {
  return (split <= 2 ? multiprocessors : multiprocessors * 10 / 11) / split * split;
}

// Nanoseconds, roughly: a wave of blocks waits for what comes into its multiprocessors or for W
// from memory, then ends.
double Estimate(int64_t n, int64_t k, const MediumPlan& plan, int multiprocessors) {
  constexpr double kMemory = 2700.0;        // bytes in a nanosecond
  constexpr double kMultiprocessor = 80.0;  // the same, into one multiprocessor
  constexpr double kEnd = 1500.0;
  constexpr double kEndColumn = 10.0;  // for each column of the tile
  constexpr double kExchange = 250.0;  // where blocks add their sums
  constexpr double kExchangeColumn = 20.0;
  const int64_t blocks = DivideUp(n, plan.columns) * plan.split;
  const int64_t most = BlocksAtOnce(plan.split, multiprocessors);
  const int64_t k_blocks = DivideUp(DivideUp(k, kMediumDepth), plan.split);
  const double all = static_cast<double>(k_blocks * MediumStageBytes(plan.columns));
  const double weights = static_cast<double>(k_blocks * plan.columns * kMediumDepth * 2);
  double wave = std::max(all / kMultiprocessor,
                         weights * static_cast<double>(std::min(blocks, most)) / kMemory);
  wave += kEnd + kEndColumn * plan.columns;
  if (plan.split > 1) wave += kExchange + kExchangeColumn * plan.columns;
  return wave * static_cast<double>(DivideUp(blocks, most));
}

bool Fits(const MediumPlan& plan) {
  return MediumOwnBytes(plan.columns) + MediumSentBytes(plan.columns, plan.split) <=
         plan.stages * MediumStageBytes(plan.columns);
}

}  // namespace

int MediumStages(int columns) {
  const int stages = std::min(kRingBytes / MediumStageBytes(columns), kMediumMaxStages);
  return stages / kMediumWays * kMediumWays;
}

absl::StatusOr<MediumPlan> PlanMedium(int64_t n, int64_t k, int multiprocessors) {
  if (n < 2 || n % 2 != 0 || n > (1 << 21)) {
    return InvalidArgument("n is {}, want an even number from 2 to 2^21", n);
  }
  if (k < 8 || k % 8 != 0 || k > (1 << 20)) {
    return InvalidArgument("k is {}, want a multiple of 8 up to 2^20", k);
  }
  if (multiprocessors < kMediumMaxSplit) {
    return InvalidArgument("{} multiprocessors", multiprocessors);
  }
  MediumPlan best;
  double least = 0.0;
  for (int columns : kMediumColumns) {
    for (int split : {1, 2, 4}) {
      const MediumPlan plan = {.columns = columns, .split = split, .stages = MediumStages(columns)};
      if (!Fits(plan) || split > DivideUp(k, kMediumDepth)) continue;
      const double estimate = Estimate(n, k, plan, multiprocessors);
      if (best.columns != 0 && estimate >= least) continue;
      best = plan;
      least = estimate;
    }
  }
  return best;
}

}  // namespace hanlin
