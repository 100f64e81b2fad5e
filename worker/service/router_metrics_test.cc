// The families that a router scrapes are all there from the start, with the values it computes
// with.
#include "worker/service/router_metrics.h"

#include <prometheus/text_serializer.h>

#include <sstream>

#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::testing::HasSubstr;

std::string Scrape(const prometheus::Registry& registry) {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, registry.Collect());
  return out.str();
}

TEST(RouterMetricsTest, FamiliesExistBeforeTheFirstRequest) {
  prometheus::Registry registry;
  const RouterMetrics metrics(registry, "poet", 16, 512);
  const std::string text = Scrape(registry);
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"poet\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"poet\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{model_name=\"poet\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("block_size=\"16\""));
  EXPECT_THAT(text, HasSubstr("num_gpu_blocks=\"512\""));
}

TEST(RouterMetricsTest, KvUsageIsAShare) {
  prometheus::Registry registry;
  RouterMetrics metrics(registry, "poet", 16, 512);
  EngineLoad load;
  load.queued_requests = 3;
  load.running_requests = 2;
  load.used_kv_blocks = 128;
  load.total_kv_blocks = 512;
  metrics.SetLoad(load);
  const std::string text = Scrape(registry);
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"poet\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"poet\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{model_name=\"poet\"} 0.25\n"));
  metrics.SetLoad(EngineLoad{});
  EXPECT_THAT(Scrape(registry), HasSubstr("vllm:kv_cache_usage_perc{model_name=\"poet\"} 0\n"));
}

}  // namespace
}  // namespace hanlin
