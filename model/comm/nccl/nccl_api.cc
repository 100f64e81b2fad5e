// Symbol by symbol.
#include "model/comm/nccl/nccl_api.h"

#include "common/cuda/dynamic_library.h"

namespace hanlin {

absl::StatusOr<std::unique_ptr<NcclApi>> NcclApi::Open() {
  ASSIGN_OR_RETURN(const DynamicLibrary library,
                   DynamicLibrary::Open("libnccl.so.2", "tensor parallelism over GPUs"));
  auto api = std::make_unique<NcclApi>();
  RETURN_IF_ERROR(library.Find("ncclGetErrorString", &api->error_string));
  RETURN_IF_ERROR(library.Find("ncclGetUniqueId", &api->get_unique_id));
  RETURN_IF_ERROR(library.Find("ncclCommInitRankConfig", &api->comm_init_rank_config));
  RETURN_IF_ERROR(library.Find("ncclCommGetAsyncError", &api->comm_get_async_error));
  RETURN_IF_ERROR(library.Find("ncclCommAbort", &api->comm_abort));
  RETURN_IF_ERROR(library.Find("ncclAllReduce", &api->all_reduce));
  RETURN_IF_ERROR(library.Find("ncclAllGather", &api->all_gather));
  RETURN_IF_ERROR(library.Find("ncclReduce", &api->reduce));
  RETURN_IF_ERROR(library.Find("ncclBroadcast", &api->broadcast));
  RETURN_IF_ERROR(library.Find("ncclGroupStart", &api->group_start));
  RETURN_IF_ERROR(library.Find("ncclGroupEnd", &api->group_end));
  return api;
}

}  // namespace hanlin
