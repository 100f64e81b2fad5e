// What the gateway counts, as Prometheus families hanlin_gateway_*. Thread-safe, as the metrics
// are.
#ifndef HANLIN_GATEWAY_METRICS_H_
#define HANLIN_GATEWAY_METRICS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/obs/metrics.h"

namespace hanlin {

class GatewayMetrics {
 public:
  explicit GatewayMetrics(prometheus::Registry& registry);

  // One RPC ended.
  void CountRequest(std::string_view method, absl::StatusCode code);

 private:
  prometheus::Family<prometheus::Counter>& requests_;  // By method and code.

 public:
  prometheus::Gauge& queued;   // Prompts taken in that have no token yet.
  prometheus::Gauge& running;  // Prompts that have one.
  prometheus::Gauge& ready_groups;
  prometheus::Counter& prompt_tokens;
  prometheus::Counter& generated_tokens;
  prometheus::Counter& cancellations;                  // By clients, deadlines passed included.
  prometheus::Counter& retries;                        // Requests sent to a worker group again.
  prometheus::Histogram& queue_seconds;                // Arrival to hand-over to a worker group.
  prometheus::Histogram& time_to_first_token_seconds;  // Since arrival.
  prometheus::Histogram& time_per_output_token_seconds;
  prometheus::Histogram& request_seconds;
};

// "OK", "INVALID_ARGUMENT", …
std::string CodeName(absl::StatusCode code);

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_METRICS_H_
