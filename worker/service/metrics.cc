// See metrics.h.
#include "worker/service/metrics.h"

#include "absl/status/status.h"
#include "common/obs/log.h"

namespace hanlin {
namespace {

prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}
prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}
prometheus::Histogram& Histogram(prometheus::Registry& registry, const char* name,
                                 const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {}, LatencyBuckets());
}

}  // namespace

WorkerMetrics::WorkerMetrics(prometheus::Registry& registry)
    : registry_(registry),
      requests_(prometheus::BuildCounter()
                    .Name("hanlin_worker_requests_total")
                    .Help("Requests that ended, by status code")
                    .Register(registry)),
      prompt_tokens_(Counter(registry, "hanlin_worker_prompt_tokens_total",
                             "Prompt tokens of requests that ended")),
      cached_prompt_tokens_(Counter(registry, "hanlin_worker_cached_prompt_tokens_total",
                                    "Of these, tokens found in the KV cache")),
      generated_tokens_(
          Counter(registry, "hanlin_worker_generated_tokens_total", "Tokens generated")),
      cancellations_(Counter(registry, "hanlin_worker_cancellations_total",
                             "Requests that were aborted by their gateway")),
      preemptions_(Counter(registry, "hanlin_worker_preemptions_total",
                           "Times a request lost its KV blocks and was recomputed")),
      queued_(Gauge(registry, "hanlin_worker_queued_requests", "Requests waiting")),
      running_(Gauge(registry, "hanlin_worker_running_requests", "Requests in the KV cache")),
      kv_used_(Gauge(registry, "hanlin_worker_kv_blocks_used", "KV blocks of running requests")),
      kv_total_(Gauge(registry, "hanlin_worker_kv_blocks", "KV blocks in all")),
      queue_seconds_(Histogram(registry, "hanlin_worker_queue_seconds",
                               "From arrival to the first step of a request")),
      time_to_first_token_seconds_(Histogram(registry, "hanlin_worker_time_to_first_token_seconds",
                                             "From arrival to the first token")),
      time_per_output_token_seconds_(Histogram(registry,
                                               "hanlin_worker_time_per_output_token_seconds",
                                               "Mean time of a request's tokens behind the first")),
      step_seconds_(Histogram(registry, "hanlin_worker_step_seconds", "Duration of a step")) {
  requests_.Add({{"code", "OK"}});  // shown before the first request
}

void WorkerMetrics::OnStep(const StepRecord& record) {
  step_seconds_.Observe(absl::ToDoubleSeconds(record.duration));
  generated_tokens_.Increment(record.generated_tokens);
}

void WorkerMetrics::OnFirstToken(absl::Duration since_arrival) {
  time_to_first_token_seconds_.Observe(absl::ToDoubleSeconds(since_arrival));
}

void WorkerMetrics::OnFinished(const FinishRecord& record) {
  CountRequest(record.code);
  prompt_tokens_.Increment(record.usage.prompt_tokens);
  cached_prompt_tokens_.Increment(record.usage.cached_prompt_tokens);
  preemptions_.Increment(record.timings.preemptions);
  if (record.finish_reason == FinishReason::kCancelled) cancellations_.Increment();
  queue_seconds_.Observe(absl::ToDoubleSeconds(record.timings.queue));
  const int32_t tokens = record.usage.completion_tokens;
  if (tokens > 1) {
    const absl::Duration rest = record.timings.total - record.timings.time_to_first_token;
    time_per_output_token_seconds_.Observe(absl::ToDoubleSeconds(rest) / (tokens - 1));
  }
  Log(LogLevel::kDebug, "request finished",
      {{"request_id", record.request->request_id},
       {"code", absl::StatusCodeToString(record.code)},
       {"finish_reason", ToString(record.finish_reason)},
       {"prompt_tokens", record.usage.prompt_tokens},
       {"completion_tokens", tokens},
       {"total_ms", absl::ToDoubleMilliseconds(record.timings.total)}});
}

void WorkerMetrics::OnRefused(absl::StatusCode code) { CountRequest(code); }

void WorkerMetrics::SetLoad(const EngineLoad& load) {
  queued_.Set(load.queued_requests);
  running_.Set(load.running_requests);
  kv_used_.Set(static_cast<double>(load.used_kv_blocks));
  kv_total_.Set(static_cast<double>(load.total_kv_blocks));
}

void WorkerMetrics::SetDevice(const DeviceMetrics& metrics) {
  if (memory_used_ == nullptr) {
    memory_used_ = &Gauge(registry_, "hanlin_worker_gpu_memory_used_bytes",
                          "Memory of the GPU in use, by all processes");
    memory_total_ = &Gauge(registry_, "hanlin_worker_gpu_memory_bytes", "Memory of the GPU");
    graph_replays_ = &Counter(registry_, "hanlin_worker_graph_replays_total",
                              "Steps that ran as one CUDA graph");
    eager_passes_ = &Counter(registry_, "hanlin_worker_eager_passes_total",
                             "Passes whose kernels were launched one by one");
  }
  memory_used_->Set(static_cast<double>(metrics.memory_used));
  memory_total_->Set(static_cast<double>(metrics.memory_total));
  graph_replays_->Increment(static_cast<double>(metrics.graph_replays - device_.graph_replays));
  eager_passes_->Increment(static_cast<double>(metrics.eager_passes - device_.eager_passes));
  device_ = metrics;
}

void WorkerMetrics::CountRequest(absl::StatusCode code) {
  requests_.Add({{"code", absl::StatusCodeToString(code)}}).Increment();
}

}  // namespace hanlin
