// The collectives that a tensor-parallel forward pass puts into its stream. They wait for nothing
// on the host and may be captured in a graph. All ranks call the same ones in the same order.
// Failure: Communicator's (model/comm/communicator.h): from then on every call is UNAVAILABLE.
#ifndef HANLIN_MODEL_COMM_NCCL_CUDA_COMMUNICATOR_H_
#define HANLIN_MODEL_COMM_NCCL_CUDA_COMMUNICATOR_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "common/cuda/stream.h"

namespace hanlin {

class CudaCommunicator {
 public:
  virtual ~CudaCommunicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // data[i] becomes the sum over the ranks, in place, on the device.
  virtual absl::Status AllReduceSum(float* data, int64_t count, const CudaStream& stream) = 0;

  // Communicator's of the same names, on the device. `cuts` is not used after the call.
  virtual absl::Status ReduceScatterSum(float* data, std::span<const int64_t> cuts,
                                        const CudaStream& stream) = 0;
  virtual absl::Status AllGather(float* data, std::span<const int64_t> cuts,
                                 const CudaStream& stream) = 0;

  // Joins column shards on every rank: shard [rows, columns] → out [rows, size * columns].
  // `scratch` has room for rows * size * columns.
  virtual absl::Status GatherColumns(const float* shard, int64_t rows, int64_t columns,
                                     float* scratch, float* out, const CudaStream& stream) = 0;

  // What the stream holds up to here must be done within the group's timeout, else the group is
  // aborted. Not inside a capture.
  virtual absl::Status Watch(const CudaStream& stream) = 0;

  // OK while the group lives. Any thread.
  virtual absl::Status Check() = 0;
  // Ends the group: what is in streams is given up. Any thread; the first call wins.
  virtual void Abort(std::string_view reason) = 0;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_NCCL_CUDA_COMMUNICATOR_H_
