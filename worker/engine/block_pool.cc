// See block_pool.h.
#include "worker/engine/block_pool.h"

namespace hanlin {

BlockPool::BlockPool(int32_t num_blocks) : blocks_(num_blocks) {
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

std::optional<int32_t> BlockPool::Allocate() {
  int32_t block = kNone;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (oldest_idle_ != kNone) {
    block = oldest_idle_;
    RemoveIdle(block);
    blocks_[block].cached = false;
    if (on_evict_) on_evict_(block);
  } else {
    return std::nullopt;
  }
  blocks_[block].references = 1;
  return block;
}

void BlockPool::AddReference(int32_t block) {
  if (blocks_[block].references++ == 0) RemoveIdle(block);
}

void BlockPool::Release(int32_t block) {
  if (--blocks_[block].references > 0) return;
  if (blocks_[block].cached) {
    PushIdle(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::PushIdle(int32_t block) {
  blocks_[block].previous = newest_idle_;
  blocks_[block].next = kNone;
  (newest_idle_ == kNone ? oldest_idle_ : blocks_[newest_idle_].next) = block;
  newest_idle_ = block;
  ++num_idle_;
}

void BlockPool::RemoveIdle(int32_t block) {
  const Block& b = blocks_[block];
  (b.previous == kNone ? oldest_idle_ : blocks_[b.previous].next) = b.next;
  (b.next == kNone ? newest_idle_ : blocks_[b.next].previous) = b.previous;
  --num_idle_;
}

}  // namespace hanlin
