// The side of the engine that other threads see: creation, Submit, aborts, load. The loop is in
// engine_loop.cc.
#include "worker/engine/engine.h"

#include "absl/time/clock.h"
#include "common/status/status.h"
#include "worker/engine/engine_impl.h"
#include "worker/engine/stop_rules.h"

namespace hanlin {
namespace {

absl::Status CheckOptions(const Engine::Options& options) {
  if (options.num_kv_blocks < 1) {
    return InvalidArgument("num_kv_blocks is {}, want at least 1", options.num_kv_blocks);
  }
  if (options.block_tokens < 1) {
    return InvalidArgument("block_tokens is {}, want at least 1", options.block_tokens);
  }
  if (options.max_batch_tokens < 1) {
    return InvalidArgument("max_batch_tokens is {}, want at least 1", options.max_batch_tokens);
  }
  if (options.max_running < 1) {
    return InvalidArgument("max_running is {}, want at least 1", options.max_running);
  }
  if (options.max_queue < 1) {
    return InvalidArgument("max_queue is {}, want at least 1", options.max_queue);
  }
  if (options.max_queue_tokens < 1) {
    return InvalidArgument("max_queue_tokens is {}, want at least 1", options.max_queue_tokens);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Options options,
                                                       std::unique_ptr<Executor> executor) {
  RETURN_IF_ERROR(CheckOptions(options));
  // A sequence that decodes takes one token of the budget; with more of them than that some would
  // wait at random.
  options.max_running = std::min(options.max_running, options.max_batch_tokens);
  return std::unique_ptr<Engine>(
      new Engine(std::make_unique<Impl>(std::move(options), std::move(executor))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

SubmitResult Engine::Submit(GenerationRequest request, std::shared_ptr<EventSink> sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}
void Engine::Abort(const EventSink* sink, uint64_t id) { impl_->Abort({sink, id}); }
void Engine::AbortAll(const EventSink* sink) { impl_->AbortAll(sink); }
void Engine::Wake() { impl_->Wake(); }
void Engine::BeginDrain() { impl_->BeginDrain(); }
bool Engine::WaitIdle(absl::Duration timeout) { return impl_->WaitIdle(timeout); }
EngineLoad Engine::load() const { return impl_->load(); }
absl::Status Engine::health() const { return impl_->health(); }
const ModelConfig& Engine::config() const { return impl_->config(); }
const RequestDefaults& Engine::defaults() const { return impl_->defaults(); }

Engine::Impl::Impl(Options options, std::unique_ptr<Executor> executor)
    : options_(std::move(options)),
      defaults_(DefaultsOf(options_.config)),
      executor_(std::move(executor)),
      admission_({.max_requests = options_.max_queue, .max_tokens = options_.max_queue_tokens}),
      scheduler_({.num_blocks = options_.num_kv_blocks,
                  .block_tokens = options_.block_tokens,
                  .max_batch_tokens = options_.max_batch_tokens,
                  .max_running = options_.max_running}),
      heartbeat_(options_.heartbeat != nullptr ? *options_.heartbeat : own_heartbeat_),
      watchdog_(&heartbeat_, options_.stall_timeout, [this](absl::Duration stalled) {
        Fail(Unavailable("a step made no progress for {:.1f} s", absl::ToDoubleSeconds(stalled)));
      }) {
  load_.total_kv_blocks = options_.num_kv_blocks;
  thread_ = std::thread([this] { Run(); });
}

Engine::Impl::~Impl() {
  {
    absl::MutexLock lock(&mutex_);
    inbox_.stop = true;
  }
  thread_.join();
}

absl::Status Engine::Impl::CheckFits(const ResolvedRequest& request) const {
  // The last token generated is never fed back.
  const int64_t tokens = int64_t{request.num_prompt_tokens} + request.max_new_tokens - 1;
  if (scheduler_.FitsEver(tokens)) return absl::OkStatus();
  return ResourceExhausted(
      "the request may need {} tokens of KV cache ({} of the prompt, max_new_tokens {}), want at "
      "most {}",
      tokens, request.num_prompt_tokens, request.max_new_tokens,
      int64_t{options_.num_kv_blocks} * options_.block_tokens);
}

SubmitResult Engine::Impl::Submit(GenerationRequest request, std::shared_ptr<EventSink> sink) {
  const auto refused = [this](absl::Status status, absl::Duration retry_after) {
    if (options_.observer != nullptr) options_.observer->OnRefused(status.code());
    return SubmitResult{.status = std::move(status), .retry_after = retry_after};
  };
  if (draining_.load()) return refused(Unavailable("the worker is draining"), {});
  absl::StatusOr<ResolvedRequest> resolved = ResolveRequest(std::move(request), options_.config);
  if (!resolved.ok()) return refused(resolved.status(), {});
  if (absl::Status status = CheckFits(*resolved); !status.ok()) return refused(status, {});

  auto sequence = std::make_unique<Sequence>();
  sequence->arrival = absl::Now();
  sequence->request = *std::move(resolved);
  sequence->banned = BannedIds(sequence->request, options_.config.end_token_ids);
  sequence->sink = std::move(sink);
  sequence->queued_tokens = sequence->num_ids();
  SubmitResult result{.seed = sequence->request.sampling.seed,
                      .max_new_tokens = sequence->request.max_new_tokens};

  absl::Duration retry_after;
  if (absl::Status status = admission_.Enter(sequence->queued_tokens, &retry_after); !status.ok()) {
    return refused(status, retry_after);
  }
  // Under one lock with the inbox, so that AbortAll comes either before or after both.
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = router_.Open(sequence->sink, sequence->request.id); !status.ok()) {
    admission_.Leave(sequence->queued_tokens, sequence->arrival);
    return refused(status, {});
  }
  ++load_.queued_requests;
  load_.queued_prompt_tokens += sequence->queued_tokens;
  inbox_.arrivals.push_back(std::move(sequence));
  return result;
}

void Engine::Impl::Abort(const RequestKey& key) {
  // An open request keeps its sink alive, so the address still means the sink that was meant.
  if (!router_.IsOpen(key)) return;
  absl::MutexLock lock(&mutex_);
  inbox_.aborts.push_back(key);
}

void Engine::Impl::AbortAll(const EventSink* sink) {
  absl::MutexLock lock(&mutex_);
  router_.CloseAll(sink);
  // What has not reached the engine's thread ends here; what comes later is not meant.
  std::erase_if(inbox_.arrivals, [&](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->sink.get() != sink) return false;
    admission_.Leave(sequence->queued_tokens, absl::Now());
    return true;
  });
  inbox_.gone_sinks.push_back(sink);
}

void Engine::Impl::Wake() {
  absl::MutexLock lock(&mutex_);
  inbox_.wake = true;
}

EngineLoad Engine::Impl::load() const {
  absl::MutexLock lock(&mutex_);
  EngineLoad load = load_;
  load.heartbeat = heartbeat_.load(std::memory_order_relaxed);
  return load;
}

void Engine::Impl::Fail(const absl::Status& cause) {
  const absl::Status failure = Unavailable("the worker failed: {}", Message(cause));
  if (router_.FailAll(failure) && options_.on_failure) options_.on_failure(failure);
}

}  // namespace hanlin
