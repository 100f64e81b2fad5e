// See metrics.h.
#include "gateway/metrics.h"

namespace hanlin {
namespace {

prometheus::Gauge& MakeGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Counter& MakeCounter(prometheus::Registry& registry, const char* name,
                                 const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const char* name,
                                     const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {}, LatencyBuckets());
}

}  // namespace

GatewayMetrics::GatewayMetrics(prometheus::Registry& registry)
    : requests_(prometheus::BuildCounter()
                    .Name("hanlin_gateway_requests_total")
                    .Help("Calls by method and status code")
                    .Register(registry)),
      queued(MakeGauge(registry, "hanlin_gateway_queued_requests",
                       "Prompts taken in that have no token yet")),
      running(MakeGauge(registry, "hanlin_gateway_running_requests",
                        "Prompts whose continuation is being streamed")),
      ready_groups(MakeGauge(registry, "hanlin_gateway_ready_groups", "Worker groups in rotation")),
      prompt_tokens(MakeCounter(registry, "hanlin_gateway_prompt_tokens_total",
                                "Prompt tokens sent to worker groups")),
      generated_tokens(MakeCounter(registry, "hanlin_gateway_generated_tokens_total",
                                   "Tokens received from worker groups for clients")),
      cancellations(MakeCounter(registry, "hanlin_gateway_cancellations_total",
                                "Prompts cancelled by their client or its deadline")),
      retries(MakeCounter(registry, "hanlin_gateway_retries_total",
                          "Prompts sent to a worker group again")),
      queue_seconds(MakeHistogram(registry, "hanlin_gateway_queue_seconds",
                                  "From arrival to the hand-over to a worker group")),
      time_to_first_token_seconds(MakeHistogram(registry,
                                                "hanlin_gateway_time_to_first_token_seconds",
                                                "From arrival to the first generated token")),
      time_per_output_token_seconds(
          MakeHistogram(registry, "hanlin_gateway_time_per_output_token_seconds",
                        "Mean time between generated tokens of a request")),
      request_seconds(MakeHistogram(registry, "hanlin_gateway_request_seconds",
                                    "From arrival to the end of a prompt's continuation")) {}

void GatewayMetrics::CountRequest(std::string_view method, absl::StatusCode code) {
  requests_.Add({{"method", std::string(method)}, {"code", CodeName(code)}}).Increment();
}

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

}  // namespace hanlin
