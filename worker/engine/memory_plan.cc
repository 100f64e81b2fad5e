// See memory_plan.h.
#include "worker/engine/memory_plan.h"

#include <algorithm>

#include "common/status/status.h"
#include "model/forward/model.h"
#include "model/weights/weights.h"

namespace hanlin {
namespace {

// Of what the weights leave; the rest is for activations, other processes and the page cache of the
// checkpoint.
constexpr double kKvShare = 0.5;

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

absl::StatusOr<int32_t> PlanKvBlocks(const MemoryRequest& request) {
  const ModelConfig& config = request.config;
  const uint64_t ranks = static_cast<uint64_t>(request.tp);
  const uint64_t weights = ranks * WeightBytes(config, request.type, request.tp);
  const uint64_t block = ranks * GptModel::KvBlockBytes(config, request.type, request.tp);
  const uint64_t block_tokens = static_cast<uint64_t>(GptModel::block_tokens());
  const uint64_t per_context = (config.max_positions + block_tokens - 1) / block_tokens;
  if (request.kv_bytes.has_value() && *request.kv_bytes < block) {
    return InvalidArgument("the KV memory is {}, want at least {}: one block of {} tokens",
                           FormatBytes(*request.kv_bytes), FormatBytes(block), block_tokens);
  }
  const uint64_t least = request.kv_bytes.value_or(per_context * block);
  if (weights + least > request.available_bytes) {
    return ResourceExhausted(
        "not enough memory: the weights take {} and the KV cache {}, but {} are available; use {}a "
        "smaller --kv-memory or a larger machine",
        FormatBytes(weights), FormatBytes(least), FormatBytes(request.available_bytes),
        request.type == ComputeType::kBFloat16 ? "" : "fewer bytes a weight (--dtype bf16), ");
  }
  const uint64_t kv_bytes = request.kv_bytes.value_or(
      std::max(least, static_cast<uint64_t>(kKvShare * (request.available_bytes - weights))));
  // More than all sequences can fill at once would only hold old prefixes.
  const uint64_t most = per_context * static_cast<uint64_t>(request.max_running);
  return static_cast<int32_t>(std::min({kv_bytes / block, most, uint64_t{1} << 30}));
}

}  // namespace hanlin
