// See routing.h.
#include "gateway/routing.h"

namespace hanlin {

std::optional<size_t> LeastOutstanding(std::span<const GroupLoad> groups, size_t turn) {
  std::optional<size_t> best;
  for (size_t i = 0; i < groups.size(); ++i) {
    const size_t candidate = (turn + i) % groups.size();
    if (!best.has_value() || groups[candidate].work() < groups[*best].work()) best = candidate;
  }
  return best;
}

}  // namespace hanlin
