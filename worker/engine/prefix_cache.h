// Finds KV blocks that already hold the beginning of a sequence. A full block is known by (entry of
// the block before it, its ids): a chain of hashes H(parent, ids) whose keys are compared in full,
// so two different prefixes can never be taken for each other. An entry lives as long as its block
// is not handed out again by the BlockPool; what hung on an entry that left can no longer be
// reached and ages out. Not thread-safe.
#ifndef HANLIN_WORKER_ENGINE_PREFIX_CACHE_H_
#define HANLIN_WORKER_ENGINE_PREFIX_CACHE_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/block_pool.h"

namespace hanlin {

class PrefixCache {
 public:
  // Names a chain of blocks; kRoot is the empty one.
  using Chain = uint64_t;
  static constexpr Chain kRoot = 0;

  // `pool` must outlive the cache and tells it of evictions.
  PrefixCache(BlockPool* pool, int32_t block_tokens);

  struct Prefix {
    std::vector<int32_t> blocks;  // one reference each, the caller's to release
    Chain chain = kRoot;
  };
  // The longest known chain of full blocks at the beginning of `ids`.
  Prefix Match(std::span<const int32_t> ids);

  // Makes `block`, which is in use and holds `ids` (block_tokens of them) behind `parent`, known.
  // Returns the chain up to it. When another block holds the same, that one stays known.
  Chain Insert(Chain parent, std::span<const int32_t> ids, int32_t block);

  size_t size() const { return entries_.size(); }

 private:
  using Key = std::pair<Chain, std::vector<int32_t>>;
  struct Entry {
    Chain chain;
    int32_t block;
  };

  void Evict(int32_t block);

  BlockPool& pool_;
  const int32_t block_tokens_;
  Chain next_chain_ = kRoot + 1;
  absl::flat_hash_map<Key, Entry> entries_;
  absl::flat_hash_map<int32_t, Key> keys_;  // by block
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_PREFIX_CACHE_H_
