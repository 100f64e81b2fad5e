// Prometheus metrics over HTTP at /metrics, by prometheus-cpp. A process makes one MetricsServer,
// registers its families on registry() and keeps the server alive. Thread-safe as prometheus-cpp
// is: families and metrics may be used from any thread. Metrics of the process itself (resident
// memory, descriptors, threads) are always there.
#ifndef HANLIN_COMMON_OBS_METRICS_H_
#define HANLIN_COMMON_OBS_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}

namespace hanlin {

class MetricsServer {
 public:
  // Serves on HOST:PORT (port 0 picks one), or only collects when `address` is empty.
  // INVALID_ARGUMENT on a bad address, FAILED_PRECONDITION when the port is in use.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Create(const std::string& address);
  ~MetricsServer();

  prometheus::Registry& registry() { return *registry_; }
  // "HOST:PORT" with the real port; empty when nothing is served.
  const std::string& address() const { return address_; }

 private:
  MetricsServer() = default;

  std::shared_ptr<prometheus::Registry> registry_;
  std::shared_ptr<prometheus::Collectable> process_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
};

// Bucket bounds in seconds that cover 100 µs to 100 s, for latencies of requests and tokens.
prometheus::Histogram::BucketBoundaries LatencyBuckets();

}  // namespace hanlin

#endif  // HANLIN_COMMON_OBS_METRICS_H_
