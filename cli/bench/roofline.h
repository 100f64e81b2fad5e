// What this machine can do, measured with the same threads as the work it is compared to: the rate
// at which a buffer can be read, and the multiply-adds of a loop that stays in registers. Not
// thread-safe per pool.
#ifndef HANLIN_CLI_BENCH_ROOFLINE_H_
#define HANLIN_CLI_BENCH_ROOFLINE_H_

#include <cstddef>
#include <optional>

#include "common/threading/thread_pool.h"
#include "kernels/base/types.h"

namespace hanlin::cli {

// One pass each, a few milliseconds: the speed of a machine that others use too varies, so they are
// taken in turn with the work and compared pair by pair.

// Bytes per second at which the pool's threads sum `bytes` at `data` (aligned to 64).
double MeasureReadRate(const std::byte* data, size_t bytes, ThreadPool& pool);

// Floating-point operations per second (a multiply-add is two) of the units that the kernels use
// for `type`; unset for the portable instruction set.
std::optional<double> MeasurePeakFlops(ComputeType type, ThreadPool& pool);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_ROOFLINE_H_
