// When a sequence of ids ends. Stop strings are not known here: the gateway aborts on them. Pure
// functions.
#ifndef HANLIN_WORKER_ENGINE_STOP_RULES_H_
#define HANLIN_WORKER_ENGINE_STOP_RULES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "worker/engine/request.h"

namespace hanlin {

// Ids that may not be drawn while fewer than min_new_tokens were generated: stop ids, and end
// tokens unless they are ignored.
std::vector<int32_t> BannedIds(const ResolvedRequest& request, std::span<const int32_t> end_tokens);

struct StopDecision {
  FinishReason reason = FinishReason::kNone;
  std::optional<int32_t> stop_id;
};
// After `id` was generated as number `num_generated` (from 1). A stop id goes before an end token,
// both before the length.
StopDecision CheckStop(const ResolvedRequest& request, std::span<const int32_t> end_tokens,
                       int32_t id, int32_t num_generated);

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_STOP_RULES_H_
