// Decides what runs in the next step: continuous batching over paged KV blocks.
//
//   1. Sequences that decode take one token each; then prompts take chunks of what is left of the
//      token budget, first come first served, so a long prompt never holds up the others' tokens.
//   2. Waiting sequences are admitted in the order of arrival while their ids, beside what the
//      running ones still need for theirs, fit the blocks that are left. Nothing is reserved for
//      tokens that are not there yet.
//   3. A sequence that needs a block when none is left takes those of the one that came last
//      (preemption): its blocks go back, it waits again and is recomputed later, often from the
//      prefix cache. The one that came first is never preempted, so there is always progress.
//
// Pure bookkeeping: no clock, no thread. Not thread-safe.
#ifndef HANLIN_WORKER_ENGINE_SCHEDULER_H_
#define HANLIN_WORKER_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "worker/engine/block_pool.h"
#include "worker/engine/executor.h"
#include "worker/engine/prefix_cache.h"
#include "worker/engine/sequence.h"

namespace hanlin {

class Scheduler {
 public:
  struct Options {
    int32_t num_blocks = 0;
    int32_t block_tokens = 16;
    int32_t max_batch_tokens = 256;
    int32_t max_running = 256;
  };
  explicit Scheduler(const Options& options);

  // Queues `sequence`, which must outlive its stay and must fit the pool (FitsEver).
  void Add(Sequence* sequence);
  // Takes it out, waiting or running, and gives its blocks back.
  void Remove(Sequence* sequence);

  // What the next step does. Sequences that are paused are left out. Empty: nothing can run.
  void Plan(StepPlan* plan);

  struct Scheduled {
    Sequence* sequence;
    int32_t num_tokens;
    bool samples;  // has a row in StepPlan::samples
  };
  // The sequences of the last plan, in its order.
  const std::vector<Scheduled>& scheduled() const { return scheduled_; }
  // The last plan runs: its tokens will be in the cache before those of any later one. Call before
  // the ids that it draws are appended, or counted as pending.
  void Commit();

  // Whether a sequence of `num_tokens` can run when it is alone.
  bool FitsEver(int64_t num_tokens) const { return BlocksFor(num_tokens) <= pool_.total(); }

  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  // Ids of waiting sequences, and of running ones that are still in their prompt, that are not in
  // the cache.
  int64_t num_queued_tokens() const;
  const BlockPool& pool() const { return pool_; }

 private:
  int64_t BlocksFor(int64_t num_tokens) const {
    return (num_tokens + options_.block_tokens - 1) / options_.block_tokens;
  }
  void ScheduleRunning(bool decoding, int32_t* budget);
  void AdmitWaiting(int32_t* budget);
  bool Admit(Sequence* sequence);
  // Gives `sequence` blocks for its first `num_tokens` ids, at the cost of those that came later;
  // false when it came last and there are none.
  bool GrowTo(Sequence* sequence, int32_t num_tokens, int32_t* budget);
  // Blocks that the running sequences still need for the ids they have.
  int64_t PromisedBlocks() const;
  void PreemptLast(int32_t* budget);
  void ReleaseBlocks(Sequence* sequence);
  void Schedule(Sequence* sequence, int32_t num_tokens, int32_t* budget);
  void Fill(StepPlan* plan) const;

  const Options options_;
  BlockPool pool_;
  PrefixCache cache_;
  uint64_t next_order_ = 0;
  bool preempted_ = false;          // in the plan being made
  std::deque<Sequence*> waiting_;   // by order
  std::vector<Sequence*> running_;  // by order
  std::vector<Scheduled> scheduled_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_SCHEDULER_H_
