// See byte_trie.h.
#include "tokenizer_svc/core/json/byte_trie.h"

#include <algorithm>

namespace hanlin {

ByteTrie ByteTrie::Build(std::vector<std::pair<std::string_view, int32_t>> entries) {
  std::sort(entries.begin(), entries.end());
  ByteTrie trie;
  std::vector<Range> pending = {{0, entries.size(), 0, kRoot}};
  while (!pending.empty()) {
    Range range = pending.back();
    pending.pop_back();
    const auto byte_of = [&](size_t i) {
      return static_cast<uint8_t>(entries[i].first[range.depth]);
    };
    if (range.begin < range.end && entries[range.begin].first.size() == range.depth) {
      trie.slots_[range.node].value = entries[range.begin++].second;
    }
    std::vector<uint8_t> bytes;
    for (size_t i = range.begin; i < range.end; ++i) {
      if (bytes.empty() || bytes.back() != byte_of(i)) bytes.push_back(byte_of(i));
    }
    if (bytes.empty()) continue;
    const uint32_t base = trie.PlaceChildren(bytes, range.node);
    for (size_t i = range.begin; i < range.end;) {
      size_t end = i;
      while (end < range.end && byte_of(end) == byte_of(i)) ++end;
      pending.push_back({i, end, range.depth + 1, base + byte_of(i)});
      i = end;
    }
  }
  return trie;
}

uint32_t ByteTrie::PlaceChildren(const std::vector<uint8_t>& bytes, uint32_t parent) {
  constexpr int kTries = 64;  // A region where this many places fail is left behind as too dense.
  uint32_t slot = std::max<uint32_t>(first_free_, uint32_t{bytes[0]} + 1);
  const auto is_free = [&](uint32_t at) {
    return at >= slots_.size() || slots_[at].check == kFree;
  };
  int tries = 0;
  for (;; ++slot) {
    if (!is_free(slot)) continue;
    const uint32_t base = slot - bytes[0];
    if (std::all_of(bytes.begin(), bytes.end(), [&](uint8_t b) { return is_free(base + b); }))
      break;
    if (++tries == kTries) first_free_ = slot;
  }
  const uint32_t base = slot - bytes[0];
  if (base + bytes.back() >= slots_.size()) slots_.resize(base + bytes.back() + 1);
  for (const uint8_t byte : bytes) slots_[base + byte].check = parent;
  slots_[parent].base = base;
  while (first_free_ < slots_.size() && !is_free(first_free_)) ++first_free_;
  return base;
}

}  // namespace hanlin
