// CudaCommunicator over NCCL. The communicator is non-blocking: no call waits longer than the
// timeout. A thread watches it: an error that NCCL reports, and a stream that does not get done
// with what Watch saw in it, abort the communicator, which frees the kernels that wait for a dead
// peer. It ends with the group through which its ranks met, which sees a peer die long before the
// timeout, and ends that group when it fails itself.
#ifndef HANLIN_MODEL_COMM_NCCL_NCCL_COMMUNICATOR_H_
#define HANLIN_MODEL_COMM_NCCL_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/comm/communicator.h"
#include "model/comm/nccl/cuda_communicator.h"

namespace hanlin {

struct NcclOptions {
  int device = 0;  // ordinal of this rank's GPU
  // The same ranks on the host; carries NCCL's id. Not owned; null: a group of one.
  Communicator* group = nullptr;
  // For the ranks to come together, and for a step.
  absl::Duration timeout = absl::Seconds(30);
};

// FAILED_PRECONDITION: libnccl.so.2 is missing. UNAVAILABLE: the ranks do not come together in
// time.
absl::StatusOr<std::unique_ptr<CudaCommunicator>> MakeNcclCommunicator(const NcclOptions& options);

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_NCCL_NCCL_COMMUNICATOR_H_
