// Which KV blocks are free, in use, or idle: an idle block is used by nobody but still holds a
// prefix that the cache can hand out again. Allocation takes free blocks first, then the idle block
// that was released the longest ago. Pure bookkeeping on block numbers. Not thread-safe.
#ifndef HANLIN_WORKER_ENGINE_BLOCK_POOL_H_
#define HANLIN_WORKER_ENGINE_BLOCK_POOL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace hanlin {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);

  // A block with one reference; nullopt when all are in use. An idle block is taken out of the
  // cache first, by on_evict.
  std::optional<int32_t> Allocate();
  // One more user of a block that is in use or idle.
  void AddReference(int32_t block);
  // One user less. With the last one the block becomes idle when it is cached, else free.
  void Release(int32_t block);

  // Marks a block in use as holding a cached prefix.
  void SetCached(int32_t block) { blocks_[block].cached = true; }
  // Told which block leaves the cache.
  void set_on_evict(std::function<void(int32_t)> on_evict) { on_evict_ = std::move(on_evict); }

  int32_t total() const { return static_cast<int32_t>(blocks_.size()); }
  // Free or idle: what Allocate can still give.
  int32_t available() const { return static_cast<int32_t>(free_.size()) + num_idle_; }
  int32_t used() const { return total() - available(); }

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int32_t references = 0;
    bool cached = false;
    // Neighbours in the list of idle blocks, oldest first.
    int32_t previous = kNone;
    int32_t next = kNone;
  };

  void PushIdle(int32_t block);
  void RemoveIdle(int32_t block);

  std::vector<Block> blocks_;
  std::vector<int32_t> free_;
  int32_t oldest_idle_ = kNone;
  int32_t newest_idle_ = kNone;
  int32_t num_idle_ = 0;
  std::function<void(int32_t)> on_evict_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_BLOCK_POOL_H_
