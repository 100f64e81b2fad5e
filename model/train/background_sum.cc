// See background_sum.h.
#include "model/train/background_sum.h"

namespace hanlin {

BackgroundSum::BackgroundSum(Communicator* group) : group_(group) {
  if (group_ == nullptr || group_->size() == 1) return;
  thread_ = std::thread([this] { Run(); });
}

BackgroundSum::~BackgroundSum() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    if (!left_.empty()) group_->Abort("a pass was given up");
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status BackgroundSum::Add(std::span<float> stretch, std::vector<int64_t> cuts) {
  if (!thread_.joinable()) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  if (!failure_.ok()) return failure_;
  left_.push_back({stretch, std::move(cuts)});
  changed_.notify_all();
  return absl::OkStatus();
}

absl::Status BackgroundSum::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return left_.empty(); });
  return failure_;
}

void BackgroundSum::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !left_.empty(); });
    if (ending_) return;
    const Stretch& stretch = left_.front();  // stays where it is while others are added
    lock.unlock();
    const absl::Status summed = stretch.cuts.empty()
                                    ? group_->AllReduceSum(stretch.values)
                                    : group_->ReduceScatterSum(stretch.values, stretch.cuts);
    lock.lock();
    if (summed.ok()) {
      left_.pop_front();
    } else {
      failure_ = summed;
      left_.clear();
    }
    changed_.notify_all();
  }
}

}  // namespace hanlin
