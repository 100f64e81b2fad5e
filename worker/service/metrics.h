// What a worker counts, as Prometheus families hanlin_worker_*. Thread-safe, as the metrics are.
#ifndef HANLIN_WORKER_SERVICE_METRICS_H_
#define HANLIN_WORKER_SERVICE_METRICS_H_

#include <string>

#include "common/obs/metrics.h"
#include "worker/engine/cuda_rank.h"
#include "worker/engine/engine.h"

namespace hanlin {

class WorkerMetrics final : public EngineObserver {
 public:
  explicit WorkerMetrics(prometheus::Registry& registry);

  void OnStep(const StepRecord& record) override;
  void OnFirstToken(absl::Duration since_arrival) override;
  void OnFinished(const FinishRecord& record) override;
  void OnRefused(absl::StatusCode code) override;

  // Sets the gauges.
  void SetLoad(const EngineLoad& load);
  // Of a GPU. The families appear with the first call.
  void SetDevice(const DeviceMetrics& metrics);

 private:
  void CountRequest(absl::StatusCode code);

  prometheus::Registry& registry_;
  prometheus::Family<prometheus::Counter>& requests_;  // by code
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& cached_prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& cancellations_;
  prometheus::Counter& preemptions_;
  prometheus::Gauge& queued_;
  prometheus::Gauge& running_;
  prometheus::Gauge& kv_used_;
  prometheus::Gauge& kv_total_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& time_to_first_token_seconds_;
  prometheus::Histogram& time_per_output_token_seconds_;
  prometheus::Histogram& step_seconds_;
  // Of a GPU.
  prometheus::Gauge* memory_used_ = nullptr;
  prometheus::Gauge* memory_total_ = nullptr;
  prometheus::Counter* graph_replays_ = nullptr;
  prometheus::Counter* eager_passes_ = nullptr;
  DeviceMetrics device_;  // the last ones
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_SERVICE_METRICS_H_
