// How many KV blocks a worker group gets: from the memory that is there or from --kv-memory, and
// whether the model fits at all, said before anything is loaded. Pure functions.
#ifndef HANLIN_WORKER_ENGINE_MEMORY_PLAN_H_
#define HANLIN_WORKER_ENGINE_MEMORY_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/base/types.h"
#include "model/config/config.h"

namespace hanlin {

struct MemoryRequest {
  ModelConfig config;
  ComputeType type = ComputeType::kFloat32;
  int tp = 1;                 // ranks, all on this host
  int32_t max_running = 256;  // sequences that share the cache at most
  uint64_t available_bytes = 0;
  std::optional<uint64_t> kv_bytes;  // over all ranks; unset = a share of what the weights leave
};

// KV blocks of the group. RESOURCE_EXHAUSTED when weights and cache do not fit, or when what is
// left cannot hold one sequence as long as the context; INVALID_ARGUMENT for kv_bytes that hold no
// block.
absl::StatusOr<int32_t> PlanKvBlocks(const MemoryRequest& request);

// "1.5 GiB".
std::string FormatBytes(uint64_t bytes);

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_MEMORY_PLAN_H_
