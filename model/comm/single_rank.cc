// The communicator of a group of one, see communicator.h.
#include <algorithm>
#include <atomic>

#include "common/status/status.h"
#include "model/comm/communicator.h"

namespace hanlin {
namespace {

class SingleRankCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status AllReduceSum(std::span<float>) override { return Check(); }
  absl::Status ReduceScatterSum(std::span<float>, std::span<const int64_t>) override {
    return Check();
  }
  absl::Status AllGather(std::span<float>, std::span<const int64_t>) override { return Check(); }
  absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns,
                             float* out) override {
    std::copy_n(shard, rows * columns, out);
    return Check();
  }
  absl::Status Broadcast(std::vector<std::byte>*, absl::Duration) override { return Check(); }
  absl::Status Barrier() override { return Check(); }
  absl::Status WaitForAll(absl::Duration) override { return Check(); }
  void Abort(std::string_view) override { aborted_ = true; }
  absl::Status Check() override {
    return aborted_ ? Unavailable("the worker was aborted") : absl::OkStatus();
  }

 private:
  std::atomic<bool> aborted_ = false;
};

}  // namespace

std::unique_ptr<Communicator> MakeSingleRankCommunicator() {
  return std::make_unique<SingleRankCommunicator>();
}

}  // namespace hanlin
