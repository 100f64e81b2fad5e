// The engine of a worker group: takes requests from any thread, runs them in continuous batches on
// one thread of its own, and hands each sink the events of a step at once. No gRPC, no text.
//
//   Submit ─▶ inbox ─▶ [engine thread: aborts, deadlines ─▶ Scheduler plan ─▶ Executor step ─▶ stop
//   rules ─▶ sinks]
//
// Failure: an Executor error, or a step that makes no progress for Options::stall_timeout (a
// watchdog looks), ends all requests with UNAVAILABLE at once, calls Options::on_failure, and the
// engine takes no more. The process is expected to exit and start again.
//
// Thread safety: all methods may be called from any thread, except from within EventSink::OnEvents.
#ifndef HANLIN_WORKER_ENGINE_ENGINE_H_
#define HANLIN_WORKER_ENGINE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/config/config.h"
#include "worker/engine/executor.h"
#include "worker/engine/request.h"

namespace hanlin {

// A snapshot of queue and cache.
struct EngineLoad {
  int32_t queued_requests = 0;
  int32_t running_requests = 0;  // with tokens in the cache
  int64_t queued_prompt_tokens = 0;
  int64_t used_kv_blocks = 0;  // by running requests; cached blocks that nobody uses do not count
  int64_t total_kv_blocks = 0;
  uint64_t steps = 0;
  uint64_t heartbeat = 0;
};

// What an observer (metrics) hears of a step.
struct StepRecord {
  absl::Duration duration;
  int32_t prefill_tokens = 0;
  int32_t generated_tokens = 0;
  int32_t sequences = 0;
};

// What an observer hears of a request that ended.
struct FinishRecord {
  const ResolvedRequest* request;
  absl::StatusCode code;  // OK with a finish reason
  FinishReason finish_reason;
  Usage usage;
  Timings timings;
};

// Called by the engine's thread: must not block. Submit's refusals come through OnRefused, from the
// caller's thread.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepRecord& record) = 0;
  virtual void OnFirstToken(absl::Duration since_arrival) = 0;
  virtual void OnFinished(const FinishRecord& record) = 0;
  virtual void OnRefused(absl::StatusCode code) = 0;
};

// The answer to Submit. status: INVALID_ARGUMENT (see ResolveRequest), RESOURCE_EXHAUSTED (queue
// full: retry_after is set; or a request that can never fit the KV cache: it is zero), UNAVAILABLE
// (draining or failed).
struct SubmitResult {
  absl::Status status;
  absl::Duration retry_after = absl::ZeroDuration();
  uint64_t seed = 0;           // the seed in use
  int32_t max_new_tokens = 0;  // the bound in use
};

class Engine {
 public:
  struct Options {
    ModelConfig config;
    // KV blocks, and positions in each.
    int32_t num_kv_blocks = 0;
    int32_t block_tokens = 16;
    // Tokens of one step: decoding sequences first, prompt chunks fill the rest.
    int32_t max_batch_tokens = 256;
    // Sequences in the cache at once; at most max_batch_tokens.
    int32_t max_running = 256;
    // Caps of the queue: requests, and prompt tokens, that wait. A single request always fits an
    // empty queue.
    int32_t max_queue = 1024;
    int64_t max_queue_tokens = 1 << 20;
    // Longest time without any progress while a step runs.
    absl::Duration stall_timeout = absl::Seconds(30);
    // Advanced by the executor as it makes progress (per layer); may be null. Must outlive the
    // engine.
    std::atomic<uint64_t>* heartbeat = nullptr;
    // Told once, from the engine's or the watchdog's thread, after all requests have ended.
    std::function<void(const absl::Status&)> on_failure;
    EngineObserver* observer = nullptr;  // may be null; must outlive the engine
  };

  // INVALID_ARGUMENT for options that make no sense. `executor` is used by the engine's thread
  // only.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(Options options,
                                                        std::unique_ptr<Executor> executor);
  // Aborts what runs, without events.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request; its events go to `sink` until one is last(). Nothing is delivered when the
  // result is not OK.
  SubmitResult Submit(GenerationRequest request, std::shared_ptr<EventSink> sink);

  // Ends the request `id` of `sink` within one step: a last event with FinishReason::kCancelled.
  // Unknown ids are ignored.
  void Abort(const EventSink* sink, uint64_t id);
  // Ends all requests of `sink` without events; none arrives after the return.
  void AbortAll(const EventSink* sink);

  // Looks at the sinks' Ready() again.
  void Wake();

  // From now on Submit answers UNAVAILABLE; what runs goes on.
  void BeginDrain();
  // True when no request is open within `timeout`.
  bool WaitIdle(absl::Duration timeout);

  EngineLoad load() const;
  // OK while the engine serves, else why it does not.
  absl::Status health() const;
  const ModelConfig& config() const;
  const RequestDefaults& defaults() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_ENGINE_ENGINE_H_
