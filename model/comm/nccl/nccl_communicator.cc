// See nccl_communicator.h.
#include "model/comm/nccl/nccl_communicator.h"

#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/cuda/status.h"
#include "model/comm/nccl/nccl_api.h"

namespace hanlin {
namespace {

constexpr absl::Duration kWatchInterval = absl::Milliseconds(50);
constexpr absl::Duration kPollInterval = absl::Microseconds(50);

class NcclCommunicator final : public CudaCommunicator {
 public:
  explicit NcclCommunicator(const NcclOptions& options)
      : options_(options),
        rank_(options.rendezvous == nullptr ? 0 : options.rendezvous->rank()),
        size_(options.rendezvous == nullptr ? 1 : options.rendezvous->size()) {}

  ~NcclCommunicator() override {
    stop_.Notify();
    if (watcher_.joinable()) watcher_.join();
    Abort("the rank ends");
    if (done_ != nullptr) cudaEventDestroy(done_);
  }

  absl::Status Connect() {
    ASSIGN_OR_RETURN(api_, NcclApi::Open());
    RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
    RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming));
    ASSIGN_OR_RETURN(const ncclUniqueId id, AgreeOnId());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    RETURN_IF_ERROR(
        Complete(api_->comm_init_rank_config(&comm_, size_, id, rank_, &config), "ncclCommInit"));
    watcher_ = std::thread([this] { WatchLoop(); });
    return absl::OkStatus();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduceSum(float* data, int64_t count, const CudaStream& stream) override {
    RETURN_IF_ERROR(Check());
    return Complete(api_->all_reduce(data, data, static_cast<size_t>(count), ncclFloat32, ncclSum,
                                     comm_, stream.get()),
                    "ncclAllReduce");
  }

  absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns, float* scratch,
                             float* out, const CudaStream& stream) override {
    RETURN_IF_ERROR(Check());
    RETURN_IF_ERROR(Complete(api_->all_gather(shard, scratch, static_cast<size_t>(rows * columns),
                                              ncclFloat32, comm_, stream.get()),
                             "ncclAllGather"));
    // scratch is [size][rows][columns].
    const size_t width = static_cast<size_t>(columns) * sizeof(float);
    for (int peer = 0; peer < size_; ++peer) {
      RETURN_IF_CUDA_ERROR(cudaMemcpy2DAsync(
          out + peer * columns, width * size_, scratch + peer * rows * columns, width, width,
          static_cast<size_t>(rows), cudaMemcpyDeviceToDevice, stream.get()));
    }
    return absl::OkStatus();
  }

  absl::Status Watch(const CudaStream& stream) override {
    RETURN_IF_ERROR(Check());
    const std::lock_guard lock(mutex_);
    deadline_ = absl::Now() + options_.timeout;
    return CudaStatus(cudaEventRecord(done_, stream.get()), "event");
  }

  absl::Status Check() override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  void Abort(std::string_view reason) override {
    const std::lock_guard lock(mutex_);
    AbortLocked(Unavailable("{}", reason));
  }

 private:
  absl::StatusOr<ncclUniqueId> AgreeOnId() {
    ncclUniqueId id = {};
    if (rank_ == 0) {
      if (const ncclResult_t result = api_->get_unique_id(&id); result != ncclSuccess) {
        return Internal("ncclGetUniqueId: {}", api_->error_string(result));
      }
    }
    if (options_.rendezvous == nullptr) return id;
    std::string text(id.internal, sizeof(id.internal));
    RETURN_IF_ERROR(options_.rendezvous->Broadcast(&text));
    if (text.size() != sizeof(id.internal)) {
      return Internal("rank 0 sent an id of {} bytes, want {}", text.size(), sizeof(id.internal));
    }
    std::memcpy(id.internal, text.data(), sizeof(id.internal));
    return id;
  }

  // A non-blocking communicator may answer "in progress": waits until it knows.
  absl::Status Complete(ncclResult_t result, std::string_view what) {
    const absl::Time deadline = absl::Now() + options_.timeout;
    while (result == ncclInProgress) {
      const std::lock_guard lock(mutex_);
      if (comm_ == nullptr) return failure_.ok() ? Unavailable("{}: no group", what) : failure_;
      if (const ncclResult_t asked = api_->comm_get_async_error(comm_, &result);
          asked != ncclSuccess) {
        result = asked;
      }
      if (result == ncclInProgress && absl::Now() > deadline) {
        AbortLocked(Unavailable("{} took longer than {:.1f} s", what,
                                absl::ToDoubleSeconds(options_.timeout)));
        return failure_;
      }
      if (result == ncclInProgress) absl::SleepFor(kPollInterval);
    }
    if (result == ncclSuccess) return absl::OkStatus();
    const std::lock_guard lock(mutex_);
    AbortLocked(Unavailable("{}: {}", what, api_->error_string(result)));
    return failure_;
  }

  void WatchLoop() {
    while (!stop_.WaitForNotificationWithTimeout(kWatchInterval)) {
      const std::lock_guard lock(mutex_);
      if (comm_ == nullptr) return;
      ncclResult_t state = ncclSuccess;
      api_->comm_get_async_error(comm_, &state);
      if (state != ncclSuccess && state != ncclInProgress) {
        AbortLocked(Unavailable("NCCL: {}", api_->error_string(state)));
      } else if (absl::Now() > deadline_ && cudaEventQuery(done_) == cudaErrorNotReady) {
        AbortLocked(Unavailable("a step took longer than {:.1f} s",
                                absl::ToDoubleSeconds(options_.timeout)));
      }
    }
  }

  void AbortLocked(absl::Status reason) {
    if (failure_.ok()) failure_ = std::move(reason);
    if (comm_ != nullptr) api_->comm_abort(comm_);
    comm_ = nullptr;
  }

  const NcclOptions options_;
  const int rank_;
  const int size_;
  std::unique_ptr<NcclApi> api_;
  cudaEvent_t done_ = nullptr;
  std::thread watcher_;
  absl::Notification stop_;

  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;  // null: aborted
  absl::Time deadline_ = absl::InfiniteFuture();
  absl::Status failure_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaCommunicator>> MakeNcclCommunicator(const NcclOptions& options) {
  auto communicator = std::make_unique<NcclCommunicator>(options);
  RETURN_IF_ERROR(communicator->Connect());
  return communicator;
}

}  // namespace hanlin
