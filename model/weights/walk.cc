// See walk.h.
#include "model/weights/walk.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "common/status/status.h"

namespace hanlin {
namespace {

class Walk {
 public:
  Walk(const std::vector<WeightPiece>& pieces, const WeightSink& sink,
       const std::function<void(double)>& progress)
      : pieces_(pieces), sink_(sink), progress_(progress) {}

  absl::Status Run(ThreadPool* pool) {
    pool->RunOnAll([this](int thread) { Work(thread); });
    return status_;
  }

 private:
  void Work(int thread) {
    int last_percent = -1;
    for (;;) {
      const size_t index = next_.fetch_add(1);
      if (index >= pieces_.size() || failed_) break;
      if (const absl::Status status = sink_(pieces_[index], thread); !status.ok()) {
        const std::lock_guard lock(mutex_);
        if (status_.ok()) status_ = status;
        failed_ = true;
      }
      const int percent = static_cast<int>(100 * (index + 1) / pieces_.size());
      if (thread == 0 && percent != last_percent && progress_) {
        progress_(percent / 100.0);
        last_percent = percent;
      }
    }
    if (thread == 0 && !failed_ && last_percent != 100 && progress_) progress_(1);
  }

  const std::vector<WeightPiece>& pieces_;
  const WeightSink& sink_;
  const std::function<void(double)>& progress_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  absl::Status status_;  // the first error; guarded by mutex_ while walking
};

}  // namespace

std::vector<WeightPiece> CutIntoPieces(std::span<const TensorShape> shapes, int64_t max_values,
                                       int64_t row_multiple) {
  std::vector<WeightPiece> pieces;
  for (size_t tensor = 0; tensor < shapes.size(); ++tensor) {
    const TensorShape& shape = shapes[tensor];
    const int64_t multiples = std::max<int64_t>(1, max_values / (row_multiple * shape.cols));
    const int64_t step = multiples * row_multiple;
    for (int64_t row = 0; row < shape.rows; row += step) {
      pieces.push_back({tensor, row, std::min(row + step, shape.rows)});
    }
  }
  return pieces;
}

absl::Status WalkPieces(const std::vector<WeightPiece>& pieces, const WeightSink& sink,
                        const std::function<void(double)>& progress, ThreadPool* pool) {
  return Walk(pieces, sink, progress).Run(pool);
}

}  // namespace hanlin
