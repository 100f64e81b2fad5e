// See prefix_cache.h.
#include "worker/engine/prefix_cache.h"

namespace hanlin {

PrefixCache::PrefixCache(BlockPool* pool, int32_t block_tokens)
    : pool_(*pool), block_tokens_(block_tokens) {
  pool_.set_on_evict([this](int32_t block) { Evict(block); });
}

PrefixCache::Prefix PrefixCache::Match(std::span<const int32_t> ids) {
  Prefix prefix;
  Key key;
  while (ids.size() >= static_cast<size_t>(block_tokens_)) {
    key.first = prefix.chain;
    key.second.assign(ids.begin(), ids.begin() + block_tokens_);
    const auto it = entries_.find(key);
    if (it == entries_.end()) break;
    pool_.AddReference(it->second.block);
    prefix.blocks.push_back(it->second.block);
    prefix.chain = it->second.chain;
    ids = ids.subspan(block_tokens_);
  }
  return prefix;
}

PrefixCache::Chain PrefixCache::Insert(Chain parent, std::span<const int32_t> ids, int32_t block) {
  Key key(parent, std::vector<int32_t>(ids.begin(), ids.end()));
  const auto [it, inserted] = entries_.try_emplace(key, Entry{next_chain_, block});
  if (inserted) {
    ++next_chain_;
    pool_.SetCached(block);
    keys_[block] = std::move(key);
  }
  return it->second.chain;
}

void PrefixCache::Evict(int32_t block) {
  const auto it = keys_.find(block);
  if (it == keys_.end()) return;
  entries_.erase(it->second);
  keys_.erase(it);
}

}  // namespace hanlin
