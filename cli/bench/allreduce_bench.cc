// See allreduce_bench.h.
#include "cli/bench/allreduce_bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <thread>
#include <vector>

#include "cli/bench/roofline.h"
#include "cli/serve/run_directory.h"
#include "common/flags/flags.h"
#include "common/host/host.h"
#include "common/status/status.h"
#include "kernels/base/aligned.h"
#include "trainer/parallel/ranks.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr size_t kReadBytes = size_t{64} << 20;
constexpr int kOperations = 3;
constexpr std::array<const char*, kOperations> kNames = {"all_reduce", "reduce_scatter",
                                                         "all_gather"};

absl::Status RunOne(int operation, Communicator& group, std::span<float> data,
                    std::span<const int64_t> cuts) {
  if (operation == 0) return group.AllReduceSum(data);
  return operation == 1 ? group.ReduceScatterSum(data, cuts) : group.AllGather(data, cuts);
}

// Seconds of an operation, as rank 0 sees it; all ranks agree on how often it runs.
absl::StatusOr<double> Measure(int operation, Communicator& group, std::span<float> data,
                               double seconds) {
  std::vector<int64_t> cuts;
  for (int rank = 0; rank <= group.size(); ++rank) {
    cuts.push_back(static_cast<int64_t>(data.size()) * rank / group.size());
  }
  const auto run = [&](int64_t times) -> absl::StatusOr<double> {
    RETURN_IF_ERROR(group.Barrier());
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < times; ++i) RETURN_IF_ERROR(RunOne(operation, group, data, cuts));
    RETURN_IF_ERROR(group.Barrier());
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(times);
  };
  RETURN_IF_ERROR(run(2).status());
  ASSIGN_OR_RETURN(const double once, run(2));
  float times =
      group.rank() == 0 ? static_cast<float>(std::clamp(std::ceil(seconds / once), 1.0, 1e6)) : 0;
  RETURN_IF_ERROR(group.AllReduceSum({&times, 1}));
  return run(static_cast<int64_t>(times));
}

using Times = std::array<double, kOperations>;

absl::StatusOr<Times> MeasureRank(const RankEnvironment& environment, size_t floats,
                                  double seconds) {
  ASSIGN_OR_RETURN(const Ranks ranks, JoinRanks(environment, 1, "bench", kPatience));
  std::vector<float> data(floats, 0.0f);  // sums stay finite however often they are taken
  Times times = {};
  for (int i = 0; i < kOperations; ++i) {
    ASSIGN_OR_RETURN(times[i], Measure(i, *ranks.data, data, seconds));
  }
  return times;
}

absl::StatusOr<Times> MeasureAll(int size, size_t floats, double seconds) {
  ASSIGN_OR_RETURN(const auto directory, RunDirectory::Create());
  std::vector<absl::StatusOr<Times>> results(size, Times{});
  std::vector<std::thread> threads;
  threads.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      const RankEnvironment environment = {rank, size, size,
                                           fmt::format("unix:{}/ranks", directory->path()), rank};
      results[rank] = MeasureRank(environment, floats, seconds);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::StatusOr<Times>& result : results) RETURN_IF_ERROR(result.status());
  return results[0];
}

// Of a few passes: others may use the machine, too.
double BestReadRate(int threads) {
  ThreadPool pool(threads);
  const AlignedVector<std::byte> memory(kReadBytes, std::byte{1});
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    best = std::max(best, MeasureReadRate(memory.data(), memory.size(), pool));
  }
  return best;
}

}  // namespace

absl::StatusOr<Json> BenchAllReduce(const AllReduceBenchOptions& options) {
  if (options.ranks < 2 || options.ranks > 64) {
    return InvalidArgument("--ranks is {}, want 2 to 64", options.ranks);
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, ParseSize("--size", options.size));
  if (bytes < sizeof(float) || bytes % sizeof(float) != 0 || bytes > uint64_t{1} << 32) {
    return InvalidArgument("--size is \"{}\", want a multiple of 4 bytes up to 4GiB", options.size);
  }
  ASSIGN_OR_RETURN(const Times times,
                   MeasureAll(options.ranks, bytes / sizeof(float), options.seconds));
  const double read_rate = BestReadRate(std::min(options.ranks, AvailableCpus()));
  const double rest = 1.0 - 1.0 / options.ranks;
  Json json = {{"bench", "allreduce"}, {"device", "cpu"},
               {"dtype", "fp32"},      {"ranks", options.ranks},
               {"bytes", bytes},       {"read_gb_per_second", read_rate * 1e-9}};
  for (int i = 0; i < kOperations; ++i) {
    const double rate = static_cast<double>(bytes) / times[i];
    const double bus = rate * rest * (i == 0 ? 2 : 1);
    json[kNames[i]] = {{"us", times[i] * 1e6},
                       {"gb_per_second", rate * 1e-9},
                       {"bus_gb_per_second", bus * 1e-9},
                       {"share_of_read_rate", bus * options.ranks / read_rate}};
  }
  return json;
}

}  // namespace hanlin::cli
