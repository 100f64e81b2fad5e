// The load of a worker group under the names that inference routers read (the model server protocol
// of the Gateway API's inference extension, as vLLM exports it), beside hanlin_worker_*.
// Thread-safe, as the metrics are.
#ifndef HANLIN_WORKER_SERVICE_ROUTER_METRICS_H_
#define HANLIN_WORKER_SERVICE_ROUTER_METRICS_H_

#include <string>

#include "common/obs/metrics.h"
#include "worker/engine/engine.h"

namespace hanlin {

class RouterMetrics {
 public:
  // `block_tokens`, `num_blocks`: size of a KV block and how many there are, which never change.
  RouterMetrics(prometheus::Registry& registry, const std::string& model_name, int block_tokens,
                int64_t num_blocks);

  void SetLoad(const EngineLoad& load);

 private:
  prometheus::Gauge& waiting_;
  prometheus::Gauge& running_;
  prometheus::Gauge& kv_usage_;  // 0 to 1
};

}  // namespace hanlin

#endif  // HANLIN_WORKER_SERVICE_ROUTER_METRICS_H_
