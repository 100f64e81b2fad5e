// The heuristics of the skinny product: every multiprocessor gets one block of equal size, with all
// of its shared memory. Measured on an H100 (docs/gpu_notes.md).
#include <algorithm>

#include "kernels/gemm/cuda/skinny.h"

namespace hanlin {
namespace {

constexpr int kRingBytes = 208 << 10;
// Fewer rows read x too often; more splits cost more in the exchange of sums.
constexpr int64_t kMinRows = 32;
constexpr int64_t kMinBlocksOfK = 3;  // per block of a cluster

int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

int ColumnsOf(int64_t m) {
  int columns = 8;
  while (columns < m && columns < 128) columns *= 2;
  return columns;
}

// The smallest power of two that leaves tiles of kMinRows rows.
int SplitOf(int64_t n, int64_t k, int multiprocessors) {
  const int64_t k_blocks = DivideUp(k, kSkinnyDepth);
  int split = 1;
  while (split < 2 && n * split < kMinRows * multiprocessors &&
         k_blocks >= kMinBlocksOfK * split * 2) {
    split *= 2;
  }
  return split;
}

}  // namespace

absl::StatusOr<SkinnyPlan> PlanSkinny(int64_t m, int64_t n, int64_t k, int multiprocessors) {
  if (m < 1 || n < 1 || m > (1 << 21) || n > (1 << 21)) {
    return InvalidArgument("m is {}, n is {}, want 1 to 2^21", m, n);
  }
  if (k < 8 || k % 8 != 0 || k > (1 << 20)) {
    return InvalidArgument("k is {}, want a multiple of 8 up to 2^20", k);
  }
  if (multiprocessors < 1) return InvalidArgument("{} multiprocessors", multiprocessors);
  SkinnyPlan plan{.split = SplitOf(n, k, multiprocessors), .columns = ColumnsOf(m)};
  const int64_t waves = DivideUp(n * plan.split, int64_t{multiprocessors} * kSkinnyMaxRows);
  const int64_t rows = DivideUp(DivideUp(n * plan.split, multiprocessors * waves), 8) * 8;
  plan.rows = static_cast<int>(std::clamp<int64_t>(rows, 8, kSkinnyMaxRows));
  const int room = kRingBytes - SkinnySlackBytes(plan.rows, plan.columns);
  const int stages = std::min(room / SkinnyRingBytes(plan.rows, plan.columns, 1), kSkinnyMaxStages);
  plan.stages = stages / SkinnyWays(plan.rows) * SkinnyWays(plan.rows);
  return plan;
}

}  // namespace hanlin
