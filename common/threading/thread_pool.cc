// Workers wait on a generation counter, the caller on the number of workers still running; both
// spin, then sleep.
#include "common/threading/thread_pool.h"

#include <algorithm>
#include <chrono>

namespace hanlin {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(20);

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` differs from `old`: spins for kSpinTime, then sleeps.
void WaitForChange(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadRange StaticPartition(int64_t n, int num_threads, int thread) {
  const int64_t share = n / num_threads;
  const int64_t rest = n % num_threads;  // the first `rest` threads take one more
  const int64_t begin = thread * share + std::min<int64_t>(thread, rest);
  return {begin, begin + share + (thread < rest ? 1 : 0)};
}

ThreadPool::ThreadPool(int num_threads) : num_threads_(std::max(num_threads, 1)) {
  workers_.reserve(num_threads_ - 1);
  for (int thread = 1; thread < num_threads_; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(Task task, void* callable) {
  if (num_threads_ == 1) {
    task(callable, 0);
    return;
  }
  task_ = task;
  callable_ = callable;
  running_.store(num_threads_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  task(callable, 0);
  for (uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) {
    WaitForChange(running_, left);
  }
}

void ThreadPool::WorkerLoop(int thread) {
  for (uint32_t seen = 0;;) {
    WaitForChange(generation_, seen);
    // A loop cannot start before this worker has finished the one before, so generations are never
    // skipped.
    ++seen;
    if (stopping_) return;
    task_(callable_, thread);
    running_.fetch_sub(1, std::memory_order_release);
    running_.notify_one();
  }
}

}  // namespace hanlin
