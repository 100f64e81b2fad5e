// See scheduler.h.
#include "worker/engine/scheduler.h"

#include <algorithm>
#include <span>

namespace hanlin {
namespace {

template <typename Container>
auto PositionOf(Container& sequences, const Sequence* sequence) {
  return std::lower_bound(sequences.begin(), sequences.end(), sequence,
                          [](const Sequence* a, const Sequence* b) { return a->order < b->order; });
}

}  // namespace

Scheduler::Scheduler(const Options& options)
    : options_(options), pool_(options.num_blocks), cache_(&pool_, options.block_tokens) {}

void Scheduler::Add(Sequence* sequence) {
  sequence->order = next_order_++;
  waiting_.push_back(sequence);
}

void Scheduler::Remove(Sequence* sequence) {
  if (sequence->running) {
    running_.erase(PositionOf(running_, sequence));
    ReleaseBlocks(sequence);
    sequence->running = false;
  } else {
    waiting_.erase(PositionOf(waiting_, sequence));
  }
  std::erase_if(scheduled_, [&](const Scheduled& s) { return s.sequence == sequence; });
}

void Scheduler::Plan(StepPlan* plan) {
  scheduled_.clear();
  preempted_ = false;
  int32_t budget = options_.max_batch_tokens;
  ScheduleRunning(/*decoding=*/true, &budget);
  ScheduleRunning(/*decoding=*/false, &budget);
  // Room made by preemption belongs to those who needed it: admitting now would only preempt again.
  if (!preempted_) AdmitWaiting(&budget);
  Fill(plan);
}

void Scheduler::ScheduleRunning(bool decoding, int32_t* budget) {
  // Preemption shortens running_ from its end, behind the sequence at hand.
  for (size_t i = 0; i < running_.size() && *budget > 0; ++i) {
    Sequence* sequence = running_[i];
    if (sequence->paused || (sequence->remaining() == 1) != decoding) continue;
    if (sequence->pending > 0 && sequence->ends_by_length()) continue;
    const int32_t wanted = std::min(sequence->remaining(), *budget);
    if (GrowTo(sequence, sequence->computed + wanted, budget)) {
      Schedule(sequence, wanted, budget);
      continue;
    }
    // It came last and blocks are short: it takes what its blocks hold, or sits this step out.
    const int32_t capacity =
        static_cast<int32_t>(sequence->blocks.size()) * options_.block_tokens - sequence->computed;
    if (capacity > 0) Schedule(sequence, std::min(wanted, capacity), budget);
  }
}

void Scheduler::AdmitWaiting(int32_t* budget) {
  for (size_t i = 0; i < waiting_.size() && *budget > 0 && num_running() < options_.max_running;) {
    Sequence* sequence = waiting_[i];
    if (sequence->paused || sequence->pending > 0) {  // preempted with a draw under way
      ++i;
      continue;
    }
    if (!Admit(sequence)) return;
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
    running_.insert(PositionOf(running_, sequence), sequence);
    sequence->running = true;
    const int32_t wanted = std::min(sequence->remaining(), *budget);
    if (GrowTo(sequence, sequence->computed + wanted, budget)) Schedule(sequence, wanted, budget);
  }
}

bool Scheduler::Admit(Sequence* sequence) {
  // The last id is always computed: its logits are wanted.
  PrefixCache::Prefix prefix =
      cache_.Match(std::span<const int32_t>(sequence->ids()).first(sequence->ids().size() - 1));
  const int64_t needed =
      BlocksFor(sequence->num_ids()) - static_cast<int64_t>(prefix.blocks.size());
  // One block more for each running sequence keeps admission and preemption from taking turns.
  const int64_t headroom = running_.empty() ? 0 : num_running();
  if (pool_.available() - PromisedBlocks() < needed + headroom) {
    for (const int32_t block : prefix.blocks) pool_.Release(block);
    return false;
  }
  sequence->known_blocks = static_cast<int32_t>(prefix.blocks.size());
  sequence->computed = sequence->known_blocks * options_.block_tokens;
  sequence->chain = prefix.chain;
  sequence->blocks = std::move(prefix.blocks);
  if (!sequence->cached_prompt_tokens.has_value()) {
    sequence->cached_prompt_tokens =
        std::min(sequence->computed, sequence->request.num_prompt_tokens);
  }
  return true;
}

bool Scheduler::GrowTo(Sequence* sequence, int32_t num_tokens, int32_t* budget) {
  const size_t wanted = static_cast<size_t>(BlocksFor(num_tokens));
  while (sequence->blocks.size() < wanted) {
    if (const std::optional<int32_t> block = pool_.Allocate()) {
      sequence->blocks.push_back(*block);
    } else if (running_.back() != sequence) {
      PreemptLast(budget);
    } else {
      return false;
    }
  }
  return true;
}

int64_t Scheduler::PromisedBlocks() const {
  int64_t blocks = 0;
  for (const Sequence* sequence : running_) {
    blocks += std::max<int64_t>(
        0, BlocksFor(sequence->total_ids()) - static_cast<int64_t>(sequence->blocks.size()));
  }
  return blocks;
}

void Scheduler::PreemptLast(int32_t* budget) {
  Sequence* victim = running_.back();
  for (const Scheduled& scheduled : scheduled_) {
    if (scheduled.sequence == victim) *budget += scheduled.num_tokens;
  }
  Remove(victim);
  ++victim->preemptions;
  waiting_.insert(PositionOf(waiting_, victim), victim);
  preempted_ = true;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  // The end first: it is the first to be evicted, and a prefix outlives what hangs on it.
  for (auto block = sequence->blocks.rbegin(); block != sequence->blocks.rend(); ++block) {
    pool_.Release(*block);
  }
  sequence->blocks.clear();
  sequence->computed = 0;
  sequence->known_blocks = 0;
  sequence->chain = PrefixCache::kRoot;
}

void Scheduler::Schedule(Sequence* sequence, int32_t num_tokens, int32_t* budget) {
  scheduled_.push_back({sequence, num_tokens, num_tokens == sequence->remaining()});
  *budget -= num_tokens;
}

void Scheduler::Fill(StepPlan* plan) const {
  plan->Clear();
  for (const Scheduled& scheduled : scheduled_) {
    const Sequence& sequence = *scheduled.sequence;
    const std::span<const int32_t> ids = sequence.ids();
    const int32_t num_blocks =
        static_cast<int32_t>(BlocksFor(sequence.computed + scheduled.num_tokens));
    plan->sequences.push_back({.first_token = static_cast<int32_t>(plan->tokens.size()),
                               .num_tokens = scheduled.num_tokens,
                               .context_tokens = sequence.computed,
                               .first_block = static_cast<int32_t>(plan->block_table.size()),
                               .num_blocks = num_blocks});
    const std::span<const int32_t> rest = ids.subspan(sequence.computed);
    const size_t known = std::min<size_t>(scheduled.num_tokens, rest.size());
    plan->tokens.insert(plan->tokens.end(), rest.begin(), rest.begin() + known);
    if (known < static_cast<size_t>(scheduled.num_tokens)) {
      plan->tokens.push_back(-1 - sequence.drawn_row);
    }
    plan->block_table.insert(plan->block_table.end(), sequence.blocks.begin(),
                             sequence.blocks.begin() + num_blocks);
    if (!scheduled.samples) continue;
    plan->logit_rows.push_back(static_cast<int32_t>(plan->tokens.size()) - 1);
    const int32_t generated = sequence.num_generated() + sequence.pending;
    const bool too_short = generated < sequence.request.min_new_tokens;
    plan->samples.push_back({.request = &sequence.request,
                             .ids = ids,
                             .position = sequence.total_ids(),
                             .banned = too_short ? std::span<const int32_t>(sequence.banned)
                                                 : std::span<const int32_t>()});
  }
}

void Scheduler::Commit() {
  const size_t block_tokens = options_.block_tokens;
  for (const Scheduled& scheduled : scheduled_) {
    Sequence& sequence = *scheduled.sequence;
    sequence.computed += scheduled.num_tokens;
    const std::span<const int32_t> ids = sequence.ids();
    const int32_t known = std::min(sequence.computed, sequence.num_ids());
    while ((sequence.known_blocks + 1) * options_.block_tokens <= known) {
      sequence.chain = cache_.Insert(
          sequence.chain, ids.subspan(sequence.known_blocks * block_tokens, block_tokens),
          sequence.blocks[sequence.known_blocks]);
      ++sequence.known_blocks;
    }
  }
}

int64_t Scheduler::num_queued_tokens() const {
  int64_t tokens = 0;
  for (const Sequence* sequence : waiting_) tokens += sequence->num_ids();
  for (const Sequence* sequence : running_) {
    if (sequence->remaining() > 1) tokens += sequence->remaining();
  }
  return tokens;
}

void StepPlan::Clear() {
  tokens.clear();
  sequences.clear();
  block_table.clear();
  logit_rows.clear();
  samples.clear();
}

}  // namespace hanlin
