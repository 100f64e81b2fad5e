// What the benchmarks' main functions share.
#ifndef HANLIN_KERNELS_BASE_CUDA_BENCHMARK_MAIN_H_
#define HANLIN_KERNELS_BASE_CUDA_BENCHMARK_MAIN_H_

#include <fmt/format.h>

#include <cstdio>

#include "common/status/status.h"

namespace hanlin {

// What main returns; says on stderr what went wrong.
inline int ExitCode(const absl::Status& status) {
  if (!status.ok()) fmt::print(stderr, "{}\n", Message(status));
  return status.ok() ? 0 : 1;
}

}  // namespace hanlin

#endif  // HANLIN_KERNELS_BASE_CUDA_BENCHMARK_MAIN_H_
