// See router_metrics.h.
#include "worker/service/router_metrics.h"

namespace hanlin {
namespace {

prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help,
                         const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

}  // namespace

RouterMetrics::RouterMetrics(prometheus::Registry& registry, const std::string& model_name,
                             int block_tokens, int64_t num_blocks)
    : waiting_(Gauge(registry, "vllm:num_requests_waiting", "Requests waiting",
                     {{"model_name", model_name}})),
      running_(Gauge(registry, "vllm:num_requests_running", "Requests in the KV cache",
                     {{"model_name", model_name}})),
      kv_usage_(Gauge(registry, "vllm:kv_cache_usage_perc", "Share of the KV blocks in use, 0 to 1",
                      {{"model_name", model_name}})) {
  Gauge(registry, "vllm:cache_config_info", "Size and number of KV blocks, as labels",
        {{"model_name", model_name},
         {"block_size", std::to_string(block_tokens)},
         {"num_gpu_blocks", std::to_string(num_blocks)}})
      .Set(1);
}

void RouterMetrics::SetLoad(const EngineLoad& load) {
  waiting_.Set(load.queued_requests);
  running_.Set(load.running_requests);
  const auto total = static_cast<double>(load.total_kv_blocks);
  kv_usage_.Set(total > 0 ? static_cast<double>(load.used_kv_blocks) / total : 0);
}

}  // namespace hanlin
