// Decode and prefill on a GPU, whole steps with sampling: what forward_bench.h measures on a CPU. A
// build without CUDA has the same functions, which say that it is missing.
#ifndef HANLIN_CLI_BENCH_CUDA_BENCH_H_
#define HANLIN_CLI_BENCH_CUDA_BENCH_H_

#include <string>

#include "cli/bench/forward_bench.h"
#include "model/train/train_model.h"

namespace hanlin::cli {

// As BenchDecode, with "floor_milliseconds", the time that reading the bytes takes at the rate
// measured in the same run. Steps follow one another as in the service: ids stay on the device.
absl::StatusOr<Json> BenchCudaDecode(const ForwardBenchOptions& options);

// As BenchPrefill; the peak is that of a large product.
absl::StatusOr<Json> BenchCudaPrefill(const ForwardBenchOptions& options);

// For train_bench.h, of device 0: its name, the operations a second of a large product, bytes in
// use by all processes, and the bytes that a model in training will take, by purpose, in GB.
absl::StatusOr<std::string> CudaDeviceName();
absl::StatusOr<uint64_t> CudaMemoryUsed();
absl::StatusOr<Json> PlanCudaTraining(const TrainModelOptions& options, ComputeType type,
                                      int64_t sequences, int64_t length);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_CUDA_BENCH_H_
