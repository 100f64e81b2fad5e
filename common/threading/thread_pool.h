// A fixed team of worker threads with fork-join parallel loops: the caller is thread 0, every loop
// ends with a barrier. Workers that wait spin for at most 20 us and then sleep on a futex, so a
// pool that is larger than the machine, or several pools on it, does not collapse; the caller waits
// for its workers the same way. One thread at a time may run loops on a pool; different pools are
// independent.
#ifndef HANLIN_COMMON_THREADING_THREAD_POOL_H_
#define HANLIN_COMMON_THREADING_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace hanlin {

// Items [begin, end) of `thread` when n items are cut into `num_threads` contiguous parts as equal
// as possible.
struct ThreadRange {
  int64_t begin;
  int64_t end;
};
ThreadRange StaticPartition(int64_t n, int num_threads, int thread);

class ThreadPool {
 public:
  // Starts num_threads - 1 workers; values below 1 count as 1. One thread means: everything runs in
  // the caller.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(begin, end, thread) on the threads whose static part of [0, n) is not empty and
  // returns when all are done. The partition depends on n and num_threads alone. What fn wrote is
  // visible to the caller afterwards. fn must not throw and must not start another loop on this
  // pool.
  template <typename Fn>
  void ParallelFor(int64_t n, Fn&& fn) {
    if (n <= 0) return;
    if (num_threads_ == 1 || n == 1) {
      fn(int64_t{0}, n, 0);
      return;
    }
    RunOnAll([&](int thread) {
      const ThreadRange range = StaticPartition(n, num_threads_, thread);
      if (range.begin < range.end) fn(range.begin, range.end, thread);
    });
  }

  // Calls fn(thread) once on every thread, the caller being thread 0.
  template <typename Fn>
  void RunOnAll(Fn&& fn) {
    using Callable = std::remove_reference_t<Fn>;
    Run([](void* callable, int thread) { (*static_cast<Callable*>(callable))(thread); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Task = void (*)(void* callable, int thread);

  void Run(Task task, void* callable);
  void WorkerLoop(int thread);

  const int num_threads_;
  Task task_ = nullptr;
  void* callable_ = nullptr;
  bool stopping_ = false;
  // On their own cache lines: workers spin on the first, the caller on the second.
  alignas(64) std::atomic<uint32_t> generation_{
      0};  // one more per loop; publishes task_, callable_, stopping_
  alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not finished the current loop
  std::vector<std::thread> workers_;
};

}  // namespace hanlin

#endif  // HANLIN_COMMON_THREADING_THREAD_POOL_H_
