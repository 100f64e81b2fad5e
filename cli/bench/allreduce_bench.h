// The collectives of ranks on this host over shared memory, the ranks being threads: what sums and
// gatherings of a size take, as training and tensor parallelism on CPUs use them.
#ifndef HANLIN_CLI_BENCH_ALLREDUCE_BENCH_H_
#define HANLIN_CLI_BENCH_ALLREDUCE_BENCH_H_

#include <string>

#include "absl/status/statusor.h"
#include "cli/output/json.h"

namespace hanlin::cli {

struct AllReduceBenchOptions {
  int ranks = 2;
  std::string size = "4MiB";  // of each rank's array
  double seconds = 1;         // of measuring, for each operation
};

// {"bench":"allreduce", …, "all_reduce": {"us", "gb_per_second", "bus_gb_per_second",
// "share_of_read_rate"}, "reduce_scatter": …, "all_gather": …}. gb_per_second is the array's size
// by the time; bus_gb_per_second what a rank has to take in at the least: 2 (n - 1) / n of it for
// an all-reduce, half of that for the others. The share: of all ranks together, beside the rate at
// which as many threads read memory.
absl::StatusOr<Json> BenchAllReduce(const AllReduceBenchOptions& options);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_BENCH_ALLREDUCE_BENCH_H_
