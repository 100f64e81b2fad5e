// The heuristics of the skinny product.
#include <algorithm>

#include "kernels/gemm/cuda/skinny.h"

namespace hanlin {
namespace {

// Two blocks of different kernels share a multiprocessor.
constexpr size_t kRingBytes = 104 << 10;

}  // namespace

absl::StatusOr<SkinnyPlan> PlanSkinny(int64_t n, int64_t k, int multiprocessors) {
  if (n < 1 || n > (1 << 21)) return InvalidArgument("n is {}, want 1 to 2^21", n);
  if (k < 8 || k % 8 != 0 || k > (1 << 20)) {
    return InvalidArgument("k is {}, want a multiple of 8 up to 2^20", k);
  }
  if (multiprocessors < 1) return InvalidArgument("{} multiprocessors", multiprocessors);
  const int64_t k_blocks = (k + kSkinnyDepth - 1) / kSkinnyDepth;
  const auto split_of = [&](int64_t rows) {
    const int64_t tiles = (n + rows - 1) / rows;
    return std::clamp<int64_t>(std::min(multiprocessors / tiles, k_blocks), 1, kSkinnyMaxSplit);
  };
  // The larger tile reads x less often; the smaller one fills the device where n is small.
  SkinnyPlan plan{.rows = 128, .split = static_cast<int>(split_of(128))};
  const int64_t blocks = (n + 127) / 128 * plan.split;
  if (blocks * 4 < multiprocessors * int64_t{3}) {
    const SkinnyPlan small{.rows = 64, .split = static_cast<int>(split_of(64))};
    if ((n + 63) / 64 * small.split > blocks) plan = small;
  }
  return plan;
}

int SkinnyColumns(int64_t m) {
  for (int columns = 8; columns < 128; columns *= 2) {
    if (m <= columns) return columns;
  }
  return 128;
}

int SkinnyStages(int rows, int columns) {
  const size_t stage = SkinnyRingBytes(rows, columns, 1);
  return static_cast<int>(std::min<size_t>(kRingBytes / stage, kSkinnyMaxStages));
}

}  // namespace hanlin
