// The functions of libnccl.so.2 that we call, found at run time; its header gives the types.
#ifndef HANLIN_MODEL_COMM_NCCL_NCCL_API_H_
#define HANLIN_MODEL_COMM_NCCL_NCCL_API_H_

#include <nccl.h>

#include <memory>

#include "common/status/status.h"

namespace hanlin {

struct NcclApi {
  // FAILED_PRECONDITION when the library, or a function of it, is missing.
  static absl::StatusOr<std::unique_ptr<NcclApi>> Open();

  decltype(ncclGetErrorString)* error_string = nullptr;
  decltype(ncclGetUniqueId)* get_unique_id = nullptr;
  decltype(ncclCommInitRankConfig)* comm_init_rank_config = nullptr;
  decltype(ncclCommGetAsyncError)* comm_get_async_error = nullptr;
  decltype(ncclCommAbort)* comm_abort = nullptr;
  decltype(ncclAllReduce)* all_reduce = nullptr;
  decltype(ncclAllGather)* all_gather = nullptr;
  decltype(ncclReduce)* reduce = nullptr;
  decltype(ncclBroadcast)* broadcast = nullptr;
  decltype(ncclGroupStart)* group_start = nullptr;
  decltype(ncclGroupEnd)* group_end = nullptr;
};

}  // namespace hanlin

#endif  // HANLIN_MODEL_COMM_NCCL_NCCL_API_H_
