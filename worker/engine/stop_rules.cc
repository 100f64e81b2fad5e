// See stop_rules.h.
#include "worker/engine/stop_rules.h"

#include <algorithm>

namespace hanlin {

std::vector<int32_t> BannedIds(const ResolvedRequest& request,
                               std::span<const int32_t> end_tokens) {
  if (request.min_new_tokens == 0) return {};
  std::vector<int32_t> banned = request.stop_ids;
  if (!request.ignore_eos) banned.insert(banned.end(), end_tokens.begin(), end_tokens.end());
  return banned;
}

StopDecision CheckStop(const ResolvedRequest& request, std::span<const int32_t> end_tokens,
                       int32_t id, int32_t num_generated) {
  if (num_generated >= request.min_new_tokens) {
    if (std::ranges::find(request.stop_ids, id) != request.stop_ids.end()) {
      return {FinishReason::kStop, id};
    }
    if (!request.ignore_eos && std::ranges::find(end_tokens, id) != end_tokens.end()) {
      return {FinishReason::kEndToken, id};
    }
  }
  if (num_generated >= request.max_new_tokens) return {FinishReason::kLength, std::nullopt};
  return {};
}

}  // namespace hanlin
