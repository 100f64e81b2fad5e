// The engine's thread: inbox, deadlines, one step after another, and what follows from the tokens
// drawn.
#include <algorithm>

#include "absl/time/clock.h"
#include "common/status/status.h"
#include "worker/engine/engine_impl.h"
#include "worker/engine/stop_rules.h"

namespace hanlin {
namespace {

// An idle engine asks the group for a sign of life this often.
constexpr absl::Duration kPingInterval = absl::Seconds(1);

Usage UsageOf(const Sequence& sequence) {
  return {.prompt_tokens = sequence.request.num_prompt_tokens,
          .completion_tokens = sequence.num_generated(),
          .cached_prompt_tokens = sequence.cached_prompt_tokens.value_or(0)};
}

Timings TimingsOf(const Sequence& sequence, absl::Time now) {
  return {.queue = sequence.first_step.value_or(now) - sequence.arrival,
          .time_to_first_token = sequence.first_token.value_or(now) - sequence.arrival,
          .total = now - sequence.arrival,
          .preemptions = sequence.preemptions};
}

}  // namespace

void Engine::Impl::Run() {
  while (TakeInbox()) {
    ExpireRequests(absl::Now());
    // Events of the last step, aborts and deadlines. The load first: who hears of an end finds its
    // blocks free.
    PublishLoad();
    router_.Flush();
    MarkPaused();
    if (const absl::Status status = Advance(); !status.ok()) {
      Fail(status);
      return;
    }
  }
  executor_->Shutdown();
}

bool Engine::Impl::TakeInbox() {
  Inbox inbox;
  {
    absl::MutexLock lock(&mutex_);
    std::swap(inbox, inbox_);
  }
  const absl::Time now = absl::Now();
  // First: arrivals in the same inbox came after it.
  for (const EventSink* sink : inbox.gone_sinks) {
    std::vector<Sequence*> theirs;
    for (const auto& [key, sequence] : sequences_) {
      if (key.first == sink) theirs.push_back(sequence.get());
    }
    for (Sequence* sequence : theirs) Discard(sequence, now);
  }
  for (std::unique_ptr<Sequence>& sequence : inbox.arrivals) {
    scheduler_.Add(sequence.get());
    const RequestKey key(sequence->sink.get(), sequence->request.id);
    sequences_[key] = std::move(sequence);
  }
  for (const RequestKey& key : inbox.aborts) {
    const auto it = sequences_.find(key);
    if (it == sequences_.end()) continue;
    RequestEvent event;
    event.finish_reason = FinishReason::kCancelled;
    Finish(it->second.get(), std::move(event), now);
  }
  return !inbox.stop;
}

void Engine::Impl::ExpireRequests(absl::Time now) {
  std::vector<Sequence*> expired;
  for (const auto& [key, sequence] : sequences_) {
    const absl::Time limit = sequence->arrival + sequence->request.time_limit;
    if (now >= std::min(limit, sequence->request.deadline)) expired.push_back(sequence.get());
  }
  for (Sequence* sequence : expired) {
    RequestEvent event;
    if (now >= sequence->request.deadline) {
      event.error = DeadlineExceeded("the deadline passed after {} of {} tokens",
                                     sequence->num_generated(), sequence->request.max_new_tokens);
    } else {
      event.finish_reason = FinishReason::kTimeLimit;
    }
    Finish(sequence, std::move(event), now);
  }
}

void Engine::Impl::MarkPaused() {
  for (const auto& [key, sequence] : sequences_) sequence->paused = !sequence->sink->Ready();
}

// Keeps as many steps in flight as the executor takes: the next one is planned while one runs.
absl::Status Engine::Impl::Advance() {
  if (MayBegin()) {
    scheduler_.Plan(&plan_);
    if (!plan_.empty()) {
      RETURN_IF_ERROR(BeginStep());
      if (std::ssize(in_flight_) < executor_->max_in_flight()) return absl::OkStatus();
    }
  }
  return in_flight_.empty() ? WaitForWork() : FinishStep();
}

bool Engine::Impl::MayBegin() const {
  return in_flight_.empty() ||
         (std::ssize(in_flight_) < executor_->max_in_flight() && !in_flight_.back().holds_next);
}

absl::Status Engine::Impl::BeginStep() {
  const absl::Time begin = absl::Now();
  NoteFirstStep(begin);
  watchdog_.SetBusy(true);
  if (absl::Status status = executor_->Begin(plan_); !status.ok()) {
    watchdog_.SetBusy(false);
    return status;
  }
  scheduler_.Commit();
  InFlight step{
      .scheduled = scheduler_.scheduled(),
      .record = {.prefill_tokens = static_cast<int32_t>(plan_.tokens.size() - plan_.samples.size()),
                 .generated_tokens = static_cast<int32_t>(plan_.samples.size()),
                 .sequences = static_cast<int32_t>(plan_.sequences.size())},
      .begin = begin};
  int32_t row = 0;
  for (const Scheduler::Scheduled& entry : step.scheduled) {
    if (!entry.samples) continue;
    ++entry.sequence->pending;
    entry.sequence->drawn_row = row++;
    // Penalties look at every id so far.
    step.holds_next |= HasPenalties(entry.sequence->request.sampling);
  }
  in_flight_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Engine::Impl::FinishStep() {
  const absl::Status status = executor_->Finish(&output_);
  InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (in_flight_.empty()) watchdog_.SetBusy(false);
  RETURN_IF_ERROR(status);
  heartbeat_.fetch_add(1, std::memory_order_relaxed);
  ++steps_;

  const absl::Time now = absl::Now();
  size_t row = 0;
  for (const Scheduler::Scheduled& entry : step.scheduled) {
    if (!entry.samples) continue;
    SampledToken* token = &output_.tokens[row++];
    if (entry.sequence != nullptr) TakeToken(entry.sequence, token, now);
  }
  step.record.duration = now - std::max(step.begin, last_finish_);
  last_finish_ = now;
  if (options_.observer != nullptr) options_.observer->OnStep(step.record);
  return absl::OkStatus();
}

void Engine::Impl::NoteFirstStep(absl::Time now) {
  for (const Scheduler::Scheduled& entry : scheduler_.scheduled()) {
    Sequence& sequence = *entry.sequence;
    if (sequence.first_step.has_value()) continue;
    sequence.first_step = now;
    admission_.Leave(sequence.queued_tokens, now);
  }
}

void Engine::Impl::TakeToken(Sequence* sequence, SampledToken* token, absl::Time now) {
  if (!sequence->first_token.has_value()) {
    sequence->first_token = now;
    if (options_.observer != nullptr) options_.observer->OnFirstToken(now - sequence->arrival);
  }
  sequence->request.ids.push_back(token->id);
  --sequence->pending;
  RequestEvent event;
  event.ids.push_back(token->id);
  if (sequence->request.logprobs >= 0) event.logprobs.push_back(std::move(token->logprobs));
  const StopDecision stop = CheckStop(sequence->request, options_.config.end_token_ids, token->id,
                                      sequence->num_generated());
  event.finish_reason = stop.reason;
  event.stop_id = stop.stop_id;
  if (event.last()) {
    Finish(sequence, std::move(event), now);
  } else {
    event.id = sequence->request.id;
    router_.Stage(sequence->sink.get(), std::move(event));
  }
}

absl::Status Engine::Impl::WaitForWork() {
  absl::Time wake = absl::Now() + kPingInterval;
  for (const auto& [key, sequence] : sequences_) {
    wake = std::min(
        {wake, sequence->arrival + sequence->request.time_limit, sequence->request.deadline});
  }
  {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this] {
      mutex_.AssertReaderHeld();
      return !inbox_.empty();
    };
    if (mutex_.AwaitWithDeadline(absl::Condition(&ready), wake)) return absl::OkStatus();
  }
  if (absl::Now() - last_ping_ < kPingInterval) return absl::OkStatus();
  watchdog_.SetBusy(true);
  absl::Status status = executor_->Ping();
  watchdog_.SetBusy(false);
  last_ping_ = absl::Now();
  return status;
}

void Engine::Impl::Finish(Sequence* sequence, RequestEvent event, absl::Time now) {
  event.id = sequence->request.id;
  event.usage = UsageOf(*sequence);
  event.timings = TimingsOf(*sequence, now);
  if (options_.observer != nullptr) {
    options_.observer->OnFinished({.request = &sequence->request,
                                   .code = event.error.code(),
                                   .finish_reason = event.finish_reason,
                                   .usage = event.usage,
                                   .timings = event.timings});
  }
  router_.Stage(sequence->sink.get(), std::move(event));
  Discard(sequence, now);
}

void Engine::Impl::Discard(Sequence* sequence, absl::Time now) {
  for (InFlight& step : in_flight_) {
    for (Scheduler::Scheduled& entry : step.scheduled) {
      if (entry.sequence == sequence) entry.sequence = nullptr;
    }
  }
  scheduler_.Remove(sequence);
  if (!sequence->first_step.has_value()) admission_.Leave(sequence->queued_tokens, now);
  sequences_.erase(RequestKey(sequence->sink.get(), sequence->request.id));
}

void Engine::Impl::PublishLoad() {
  absl::MutexLock lock(&mutex_);
  load_.queued_requests = scheduler_.num_waiting() + static_cast<int32_t>(inbox_.arrivals.size());
  load_.running_requests = scheduler_.num_running();
  load_.queued_prompt_tokens = scheduler_.num_queued_tokens();
  for (const auto& sequence : inbox_.arrivals) {
    load_.queued_prompt_tokens += sequence->num_ids();
  }
  load_.used_kv_blocks = scheduler_.pool().used();
  load_.steps = steps_;
}

}  // namespace hanlin
