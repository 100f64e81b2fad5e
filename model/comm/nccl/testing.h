// For tests of several ranks that share one GPU, which NCCL refuses: sums go over the host.
#ifndef HANLIN_MODEL_COMM_NCCL_TESTING_H_
#define HANLIN_MODEL_COMM_NCCL_TESTING_H_

#include <span>
#include <vector>

#include "common/cuda/status.h"
#include "model/comm/communicator.h"
#include "model/comm/nccl/cuda_communicator.h"

namespace hanlin::testing {

// What training uses of a CudaCommunicator. Every sum waits until it is done, so what a stream
// should wait for in front of a sum is seen, and behind it is not.
class HostCudaCommunicator : public CudaCommunicator {
 public:
  explicit HostCudaCommunicator(Communicator* group) : group_(*group) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }

  absl::Status AllReduceSum(float* data, int64_t count, const CudaStream& stream) override {
    return OnHost(data, count, stream,
                  [&](std::span<float> host) { return group_.AllReduceSum(host); });
  }
  absl::Status ReduceScatterSum(float* data, std::span<const int64_t> cuts,
                                const CudaStream& stream) override {
    return OnHost(data, cuts.back(), stream,
                  [&](std::span<float> host) { return group_.ReduceScatterSum(host, cuts); });
  }
  absl::Status AllGather(float* data, std::span<const int64_t> cuts,
                         const CudaStream& stream) override {
    return OnHost(data, cuts.back(), stream,
                  [&](std::span<float> host) { return group_.AllGather(host, cuts); });
  }
  absl::Status GatherColumns(const float*, int64_t, int64_t, float*, float*,
                             const CudaStream&) override {
    return Unimplemented("gathering columns over the host");
  }
  absl::Status Watch(const CudaStream&) override { return Check(); }
  absl::Status Check() override { return group_.Check(); }
  void Abort(std::string_view reason) override { group_.Abort(reason); }

 private:
  template <typename Work>
  static absl::Status OnHost(float* data, int64_t count, const CudaStream& stream, Work work) {
    std::vector<float> host(count);
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(host.data(), data, count * sizeof(float),
                                         cudaMemcpyDeviceToHost, stream.get()));
    RETURN_IF_ERROR(stream.Synchronize());
    RETURN_IF_ERROR(work(host));
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(data, host.data(), count * sizeof(float),
                                         cudaMemcpyHostToDevice, stream.get()));
    return stream.Synchronize();
  }

  Communicator& group_;
};

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_COMM_NCCL_TESTING_H_
