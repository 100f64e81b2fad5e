// Sums over the ranks of a group on a thread of its own, so that the caller can go on computing:
// stretches of an array in the order in which they are added, which is the same on all ranks. An
// element's sum does not depend on how the array is cut. From the first Add to the end of Wait the
// group's collectives belong to the thread.
//
// Failure: once a sum has failed nothing more is summed, and every call returns the reason. An
// object that ends with work left ends the group, for which others may be waiting. Thread safety:
// one thread at a time.
#ifndef HANLIN_MODEL_TRAIN_BACKGROUND_SUM_H_
#define HANLIN_MODEL_TRAIN_BACKGROUND_SUM_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "model/comm/communicator.h"

namespace hanlin {

class BackgroundSum {
 public:
  // `group` is not owned; null or a group of one: there is nothing to sum and no thread.
  explicit BackgroundSum(Communicator* group);
  ~BackgroundSum();
  BackgroundSum(const BackgroundSum&) = delete;
  BackgroundSum& operator=(const BackgroundSum&) = delete;

  // By the end of Wait stretch is what AllReduceSum makes of it, with `cuts` what ReduceScatterSum
  // does; it is not to be touched before.
  absl::Status Add(std::span<float> stretch, std::vector<int64_t> cuts = {});
  // Returns when everything is summed.
  absl::Status Wait();

 private:
  void Run();

  Communicator* const group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Stretch {
    std::span<float> values;
    std::vector<int64_t> cuts;
  };
  std::deque<Stretch> left_;  // the first one is being summed
  absl::Status failure_;
  bool ending_ = false;
  std::thread thread_;  // after what it uses
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_TRAIN_BACKGROUND_SUM_H_
