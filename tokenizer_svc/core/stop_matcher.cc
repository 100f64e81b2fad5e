// See stop_matcher.h. Aho and Corasick, "Efficient string matching: an aid to bibliographic search"
// (1975).
#include "tokenizer_svc/core/stop_matcher.h"

#include <unordered_map>
#include <utility>

#include "common/status/status.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {

// Node 0 is the root; a node is a prefix of some stop.
struct StopMatcher::Automaton {
  struct Node {
    int32_t fail = 0;   // The longest proper suffix of this prefix that is a node.
    int32_t depth = 0;  // Bytes of the prefix.
    int32_t stop = -1;  // The longest stop that ends here, or -1.
  };
  std::vector<Node> nodes = {Node{}};
  std::unordered_map<uint32_t, int32_t> edges;  // node << 8 | byte -> node; at most 2^16 nodes.
  std::vector<size_t> lengths;                  // By stop, in bytes.

  static uint32_t Key(int32_t node, uint8_t byte) {
    return (static_cast<uint32_t>(node) << 8) | byte;
  }

  int32_t Step(int32_t node, uint8_t byte) const {
    for (;; node = nodes[node].fail) {
      const auto edge = edges.find(Key(node, byte));
      if (edge != edges.end()) return edge->second;
      if (node == 0) return 0;
    }
  }

  void Add(std::string_view stop, int32_t index) {
    int32_t node = 0;
    for (const char c : stop) {
      const auto [edge, added] =
          edges.try_emplace(Key(node, static_cast<uint8_t>(c)), static_cast<int32_t>(nodes.size()));
      if (added) nodes.push_back({.depth = nodes[node].depth + 1});
      node = edge->second;
    }
    if (nodes[node].stop < 0) nodes[node].stop = index;
    lengths.push_back(stop.size());
  }

  // Sets the fail links by walking every stop one byte at a time, shallow nodes before deep ones.
  void Link(const std::vector<std::string>& stops) {
    std::vector<int32_t> at(stops.size(), 0);
    for (size_t i = 0; i < kMaxStopBytes; ++i) {
      for (size_t s = 0; s < stops.size(); ++s) {
        if (i >= stops[s].size()) continue;
        const uint8_t byte = static_cast<uint8_t>(stops[s][i]);
        const int32_t parent = at[s];
        const int32_t child = at[s] = edges.at(Key(parent, byte));
        if (parent == 0) continue;
        nodes[child].fail = Step(nodes[parent].fail, byte);
        if (nodes[child].stop < 0) nodes[child].stop = nodes[nodes[child].fail].stop;
      }
    }
  }
};

absl::StatusOr<StopMatcher> StopMatcher::Create(const std::vector<std::string>& stops,
                                                bool include_match) {
  if (stops.size() > kMaxStops) {
    return InvalidArgument("{} stop strings, want at most {}", stops.size(), kMaxStops);
  }
  auto automaton = std::make_shared<Automaton>();
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string& stop = stops[i];
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return InvalidArgument("stop string {} has {} bytes, want 1 to {}", i, stop.size(),
                             kMaxStopBytes);
    }
    if (const size_t valid = ValidUtf8Prefix(stop); valid != stop.size()) {
      return InvalidArgument("stop string {} is not UTF-8: byte {} is 0x{:02X}", i, valid,
                             static_cast<uint8_t>(stop[valid]));
    }
    automaton->Add(stop, static_cast<int32_t>(i));
  }
  automaton->Link(stops);
  return StopMatcher(std::move(automaton), include_match);
}

StopMatcher::StopMatcher(std::shared_ptr<const Automaton> automaton, bool include_match)
    : automaton_(std::move(automaton)), include_match_(include_match) {}

std::string StopMatcher::Push(std::string_view text) {
  if (match_.has_value()) return {};
  const uint64_t held_begin = consumed_ - held_.size();
  held_.append(text);
  for (const char c : text) {
    state_ = automaton_->Step(state_, static_cast<uint8_t>(c));
    ++consumed_;
    const int32_t stop = automaton_->nodes[state_].stop;
    if (stop < 0) continue;
    const uint64_t begin = consumed_ - automaton_->lengths[stop];
    match_ = Match{static_cast<size_t>(stop), begin, consumed_};
    held_.resize((include_match_ ? consumed_ : begin) - held_begin);
    return std::exchange(held_, {});
  }
  const size_t ready = held_.size() - automaton_->nodes[state_].depth;
  std::string out = held_.substr(0, ready);
  held_.erase(0, ready);
  return out;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace hanlin
