// For tests of several ranks that share one GPU, which NCCL refuses: sums go over the host.
#ifndef HANLIN_MODEL_COMM_NCCL_TESTING_H_
#define HANLIN_MODEL_COMM_NCCL_TESTING_H_

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
    std::vector<float> host(count);
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(host.data(), data, count * sizeof(float),
                                         cudaMemcpyDeviceToHost, stream.get()));
    RETURN_IF_ERROR(stream.Synchronize());
    RETURN_IF_ERROR(group_.AllReduceSum(host));
    RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(data, host.data(), count * sizeof(float),
                                         cudaMemcpyHostToDevice, stream.get()));
    return stream.Synchronize();
  }
  absl::Status GatherColumns(const float*, int64_t, int64_t, float*, float*,
                             const CudaStream&) override {
    return Unimplemented("gathering columns over the host");
  }
  absl::Status Watch(const CudaStream&) override { return Check(); }
  absl::Status Check() override { return group_.Check(); }
  void Abort(std::string_view reason) override { group_.Abort(reason); }

 private:
  Communicator& group_;
};

}  // namespace hanlin::testing

#endif  // HANLIN_MODEL_COMM_NCCL_TESTING_H_
