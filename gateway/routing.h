// Which worker group takes the next request: the one with the least outstanding work. Work is what
// this gateway has open there plus what the group reported beyond that (other gateways).
// Thread-safe: no state.
#ifndef HANLIN_GATEWAY_ROUTING_H_
#define HANLIN_GATEWAY_ROUTING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hanlin {

struct GroupLoad {
  int64_t requests = 0;       // Outstanding.
  int64_t prompt_tokens = 0;  // Of requests that have no token yet.

  // In requests. A prompt token costs far less than the tens to hundreds of steps that the rest of
  // a request takes, but a few hundred of them are a step's worth.
  double work() const {
    return static_cast<double>(requests) + static_cast<double>(prompt_tokens) / 256;
  }
};

// What a group reported, less what this gateway had open there at that moment.
inline GroupLoad OthersLoad(const GroupLoad& reported, const GroupLoad& own_then) {
  return {std::max<int64_t>(0, reported.requests - own_then.requests),
          std::max<int64_t>(0, reported.prompt_tokens - own_then.prompt_tokens)};
}

// Index of the least loaded; among equals the first at or after `turn`, so that idle groups take
// turns. nullopt when there is none.
std::optional<size_t> LeastOutstanding(std::span<const GroupLoad> groups, size_t turn);

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_ROUTING_H_
