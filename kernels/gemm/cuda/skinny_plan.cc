// The heuristics of the skinny product: every multiprocessor gets one block of equal size, with all
// of its shared memory. Measured on an H100 (docs/gpu_notes.md).
#include <algorithm>

#include "kernels/gemm/cuda/skinny.h"

namespace hanlin {
namespace {

constexpr int kRingBytes = 208 << 10;
// Tiles with fewer rows would read x too often; two blocks share k instead.
constexpr int64_t kMinRows = 32;
constexpr int64_t kMinBlocksOfK = 6;  // for two blocks that share k
// A few multiprocessors stay free: pairs of blocks find their places sooner.
constexpr int64_t kBlocksOf11 = 10;

int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

int ColumnsOf(int64_t m) {
  int columns = 8;
  while (columns < m && columns < 128) columns *= 2;
  return columns;
}

int SplitOf(int64_t n, int64_t k, int multiprocessors) {
  const bool narrow = n < kMinRows * multiprocessors;
  return narrow && DivideUp(k, kSkinnyDepth) >= kMinBlocksOfK ? 2 : 1;
}

// Rows of equal tiles for `blocks` blocks of a wave, as few waves as tiles of kSkinnyMaxRows allow.
int64_t RowsFor(int64_t n, int64_t blocks) {
  const int64_t waves = DivideUp(n, blocks * kSkinnyMaxRows);
  return DivideUp(DivideUp(n, blocks * waves), 8) * 8;
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
  const int64_t all = RowsFor(n * plan.split, multiprocessors);
  const int64_t most = RowsFor(n * plan.split, DivideUp(multiprocessors * kBlocksOf11, 11));
  // A tile of more than 64 rows takes a second warpgroup.
  const int64_t rows = all <= 64 && most > 64 ? all : most;
  plan.rows = static_cast<int>(std::min<int64_t>(rows, kSkinnyMaxRows));
  const int room = kRingBytes - SkinnySlackBytes(plan.rows, plan.columns);
  const int stages = std::min(room / SkinnyRingBytes(plan.rows, plan.columns, 1), kSkinnyMaxStages);
  plan.stages = stages / SkinnyWays(plan.rows) * SkinnyWays(plan.rows);
  return plan;
}

}  // namespace hanlin
