// Loops, barriers and sleeping workers, also with more threads than processors.
#include "common/threading/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

namespace hanlin {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, ParallelForVisitsEveryItemOnceOnItsStaticThread) {
  ThreadPool pool(GetParam());
  for (int64_t n : {0, 1, 2, 3, 7, 16, 1000}) {
    std::vector<int> visits(n, 0);
    pool.ParallelFor(n, [&](int64_t begin, int64_t end, int thread) {
      ASSERT_LT(thread, pool.num_threads());
      for (int64_t i = begin; i < end; ++i) ++visits[i];
    });
    EXPECT_EQ(visits, std::vector<int>(n, 1)) << "n = " << n;
  }
}

TEST_P(ThreadPoolTest, RunOnAllCallsEveryThreadOnceAndTheCallerIsThreadZero) {
  ThreadPool pool(GetParam());
  std::vector<std::thread::id> ids(pool.num_threads());
  pool.RunOnAll([&](int thread) { ids[thread] = std::this_thread::get_id(); });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  for (size_t i = 0; i < ids.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(ids[i], ids[j]);
  }
}

TEST_P(ThreadPoolTest, ManyLoopsInARowSeeEachOthersResults) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.ParallelFor(64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[i] = values[i] + 1;
    });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 64 * 2000);
}

TEST_P(ThreadPoolTest, WorkersWakeAfterTheyFellAsleep) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.RunOnAll([&](int) { ++calls; });
  }
  EXPECT_EQ(calls, 3 * pool.num_threads());
}

TEST_P(ThreadPoolTest, CallerSleepsUntilASlowWorkerIsDone) {
  ThreadPool pool(GetParam());
  std::atomic<int> done{0};
  pool.RunOnAll([&](int thread) {
    if (thread > 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    ++done;
  });
  EXPECT_EQ(done, pool.num_threads());
}

// 16 threads are more than the machine of most developers has.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 16));

TEST(ThreadPool, SeveralPoolsOnOneMachineDoNotDisturbEachOther) {
  std::vector<std::thread> owners;
  owners.reserve(4);
  std::atomic<int64_t> total{0};
  for (int i = 0; i < 4; ++i) {
    owners.emplace_back([&] {
      ThreadPool pool(4);
      for (int round = 0; round < 200; ++round) {
        pool.ParallelFor(100, [&](int64_t begin, int64_t end, int) { total += end - begin; });
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(total, 4 * 200 * 100);
}

TEST(ThreadPool, ThreadCountsBelowOneCountAsOne) { EXPECT_EQ(ThreadPool(-3).num_threads(), 1); }

TEST(StaticPartition, PartsAreContiguousAndDifferByAtMostOne) {
  for (int64_t n = 0; n < 40; ++n) {
    for (int threads = 1; threads < 9; ++threads) {
      int64_t next = 0;
      for (int thread = 0; thread < threads; ++thread) {
        const ThreadRange range = StaticPartition(n, threads, thread);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.end - range.begin, n / threads);
        EXPECT_LE(range.end - range.begin, n / threads + 1);
        next = range.end;
      }
      EXPECT_EQ(next, n);
    }
  }
}

}  // namespace
}  // namespace hanlin
