// See nccl_communicator.h.
#include "model/comm/nccl/nccl_communicator.h"

#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

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
        group_(options.group != nullptr && options.group->size() > 1 ? options.group : nullptr),
        rank_(group_ == nullptr ? 0 : group_->rank()),
        size_(group_ == nullptr ? 1 : group_->size()) {}

  ~NcclCommunicator() override {
    stop_.Notify();
    if (watcher_.joinable()) watcher_.join();
    Release(Unavailable("the rank ends"));
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
    return Launch("ncclAllReduce", [&](ncclComm_t comm) {
      return api_->all_reduce(data, data, static_cast<size_t>(count), ncclFloat32, ncclSum, comm,
                              stream.get());
    });
  }

  // Parts differ in size, which ncclReduceScatter and ncclAllGather do not allow: one operation a
  // part, launched together.
  absl::Status ReduceScatterSum(float* data, std::span<const int64_t> cuts,
                                const CudaStream& stream) override {
    return ForParts("ncclReduce", data, cuts, [&](float* part, size_t n, int root, ncclComm_t c) {
      return api_->reduce(part, part, n, ncclFloat32, ncclSum, root, c, stream.get());
    });
  }

  absl::Status AllGather(float* data, std::span<const int64_t> cuts,
                         const CudaStream& stream) override {
    return ForParts("ncclBroadcast", data, cuts,
                    [&](float* part, size_t n, int root, ncclComm_t c) {
                      return api_->broadcast(part, part, n, ncclFloat32, root, c, stream.get());
                    });
  }

  absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns, float* scratch,
                             float* out, const CudaStream& stream) override {
    RETURN_IF_ERROR(Launch("ncclAllGather", [&](ncclComm_t comm) {
      return api_->all_gather(shard, scratch, static_cast<size_t>(rows * columns), ncclFloat32,
                              comm, stream.get());
    }));
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
    AbortWith(Unavailable("{}", reason)).IgnoreError();
  }

 private:
  absl::StatusOr<ncclUniqueId> AgreeOnId() {
    ncclUniqueId id = {};
    if (rank_ == 0) {
      if (const ncclResult_t result = api_->get_unique_id(&id); result != ncclSuccess) {
        return Internal("ncclGetUniqueId: {}", api_->error_string(result));
      }
    }
    if (group_ == nullptr) return id;
    const auto* const bytes = reinterpret_cast<const std::byte*>(id.internal);
    std::vector<std::byte> message(bytes, bytes + sizeof(id.internal));
    RETURN_IF_ERROR(group_->Broadcast(&message, options_.timeout));
    if (message.size() != sizeof(id.internal)) {
      return Internal("rank 0 sent an id of {} bytes, want {}", message.size(),
                      sizeof(id.internal));
    }
    std::memcpy(id.internal, message.data(), sizeof(id.internal));
    return id;
  }

  absl::Status CheckGroup() const { return group_ == nullptr ? absl::OkStatus() : group_->Check(); }

  // The lock keeps the communicator from being aborted, hence freed, during the call.
  template <typename Call>
  absl::Status Launch(std::string_view what, Call call) {
    ncclResult_t result = ncclSuccess;
    {
      const std::lock_guard lock(mutex_);
      if (comm_ == nullptr) return failure_;
      result = call(comm_);
    }
    return Complete(result, what);
  }

  // call(part, count, rank, communicator) for every part that is not empty, in one group.
  template <typename Call>
  absl::Status ForParts(std::string_view what, float* data, std::span<const int64_t> cuts,
                        Call call) {
    return Launch(what, [&](ncclComm_t comm) {
      ncclResult_t result = api_->group_start();
      for (int root = 0; root < size_ && (result == ncclSuccess || result == ncclInProgress);
           ++root) {
        const int64_t count = cuts[root + 1] - cuts[root];
        if (count > 0) result = call(data + cuts[root], static_cast<size_t>(count), root, comm);
      }
      const ncclResult_t ended = api_->group_end();
      return result == ncclSuccess || result == ncclInProgress ? ended : result;
    });
  }

  // A non-blocking communicator may answer "in progress": waits until it knows.
  absl::Status Complete(ncclResult_t result, std::string_view what) {
    const absl::Time deadline = absl::Now() + options_.timeout;
    while (result == ncclInProgress) {
      if (absl::Now() > deadline) {
        return AbortWith(Unavailable("{} took longer than {:.1f} s", what,
                                     absl::ToDoubleSeconds(options_.timeout)));
      }
      if (absl::Status group = CheckGroup(); !group.ok()) return AbortWith(std::move(group));
      RETURN_IF_ERROR(Ask(&result));
      if (result == ncclInProgress) absl::SleepFor(kPollInterval);
    }
    if (result == ncclSuccess) return absl::OkStatus();
    return AbortWith(Unavailable("{}: {}", what, api_->error_string(result)));
  }

  // The communicator's state; UNAVAILABLE when it is gone.
  absl::Status Ask(ncclResult_t* state) {
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return failure_;
    const ncclResult_t asked = api_->comm_get_async_error(comm_, state);
    if (asked != ncclSuccess) *state = asked;
    return absl::OkStatus();
  }

  bool IsOverdue() {
    const std::lock_guard lock(mutex_);
    return absl::Now() > deadline_ && cudaEventQuery(done_) == cudaErrorNotReady;
  }

  void WatchLoop() {
    cudaSetDevice(options_.device);  // else the event's query opens device 0
    while (!stop_.WaitForNotificationWithTimeout(kWatchInterval)) {
      ncclResult_t state = ncclSuccess;
      if (!Ask(&state).ok()) return;
      if (absl::Status group = CheckGroup(); !group.ok()) {
        AbortWith(std::move(group)).IgnoreError();
      } else if (state != ncclSuccess && state != ncclInProgress) {
        AbortWith(Unavailable("NCCL: {}", api_->error_string(state))).IgnoreError();
      } else if (IsOverdue()) {
        AbortWith(Unavailable("a step took longer than {:.1f} s",
                              absl::ToDoubleSeconds(options_.timeout)))
            .IgnoreError();
      }
    }
  }

  // Returns the reason that counts, the first one of any rank.
  absl::Status AbortWith(absl::Status reason) {
    if (group_ != nullptr) {
      group_->Abort(Message(reason));
      reason = group_->Check();
    }
    Release(std::move(reason));
    return Check();
  }

  // NCCL may take its time to abort: others hear of the failure before.
  void Release(absl::Status reason) {
    ncclComm_t comm = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (failure_.ok()) failure_ = std::move(reason);
      std::swap(comm, comm_);
    }
    if (comm != nullptr) api_->comm_abort(comm);
  }

  const NcclOptions options_;
  Communicator* const group_;  // null: alone
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
