// See service_bench.h.
#include "cli/bench/service_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>

#include "cli/bench/load_client.h"
#include "cli/bench/server_process.h"
#include "cli/generate/prompts.h"
#include "common/host/host.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kPrompt[] = "《春日》无名氏\n";
// Requests of one stream that show what the service adds to the first token when nothing else runs.
constexpr int kIdleRequests = 300;
constexpr int kIdleTokens = 4;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<v1::StreamGenerateRequest> MakeRequests(const std::vector<v1::Prompt>& prompts,
                                                    int max_tokens) {
  std::vector<v1::StreamGenerateRequest> requests;
  for (const v1::Prompt& prompt : prompts) {
    v1::StreamGenerateRequest request;
    *request.mutable_prompt() = prompt;
    v1::StoppingParameters* stopping = request.mutable_parameters()->mutable_stopping();
    stopping->set_max_new_tokens(max_tokens);
    stopping->set_ignore_eos(true);
    requests.push_back(std::move(request));
  }
  return requests;
}

absl::StatusOr<std::vector<v1::Prompt>> LoadPrompts(const std::string& input) {
  if (!input.empty()) return ReadPrompts(input);
  v1::Prompt prompt;
  prompt.set_text(kPrompt);
  return std::vector<v1::Prompt>{prompt};
}

Json Describe(const LoadBenchOptions& options, int requests, int max_tokens) {
  return {{"bench", "load"},
          {"device", !options.target.empty() ? "unknown"
                     : options.null          ? "null"
                                             : "cpu"},
          {"target", options.target.empty() ? "own service" : options.target},
          {"cpus", AvailableCpus()},
          {"null_step_us", options.step_us},
          {"streams", options.streams},
          {"requests", requests},
          {"rate", options.rate > 0 ? Json(options.rate) : Json(nullptr)},
          {"max_tokens", max_tokens}};
}

void AddResult(const LoadResult& result, Json* json) {
  (*json)["seconds"] = result.elapsed;
  (*json)["tokens_per_second"] = result.tokens / result.elapsed;
  (*json)["messages_per_second"] = result.messages / result.elapsed;
  (*json)["ids_per_message"] =
      static_cast<double>(result.tokens) / static_cast<double>(result.messages);
  (*json)["requests_per_second"] = result.whole.size() / result.elapsed;
  (*json)["ttft_ms"] = Percentiles(result.first_token);
  (*json)["added_ttft_ms"] = Percentiles(result.added_first_token);
  (*json)["tpot_ms"] = Percentiles(result.per_token);
  (*json)["itl_ms"] = Percentiles(result.gap);
  (*json)["e2el_ms"] = Percentiles(result.whole);
  (*json)["errors"] = Json(result.errors);
}

}  // namespace

Json Percentiles(std::vector<double> seconds) {
  if (seconds.empty()) return nullptr;
  std::sort(seconds.begin(), seconds.end());
  // Nearest rank: the smallest value that at least this part of the values does not exceed.
  const auto at = [&](double part) {
    const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(seconds.size())));
    return seconds[std::clamp<size_t>(rank, 1, seconds.size()) - 1] * 1e3;
  };
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  return {{"mean", sum / static_cast<double>(seconds.size()) * 1e3},
          {"p50", at(0.5)},
          {"p90", at(0.9)},
          {"p99", at(0.99)},
          {"max", seconds.back() * 1e3}};
}

absl::StatusOr<Json> BenchStart(const StartBenchOptions& options) {
  std::vector<std::string> arguments = {"--device", options.device};
  if (!options.model.empty()) arguments.insert(arguments.end(), {"--model", options.model});
  ASSIGN_OR_RETURN(const auto prompts, LoadPrompts(""));
  std::vector<double> ready;
  std::vector<double> first_token;
  for (int i = 0; i < options.repeats; ++i) {
    const Clock::time_point start = Clock::now();
    ASSIGN_OR_RETURN(const auto server, ServerProcess::Start(arguments));
    ready.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    LoadOptions load{.target = server->address(),
                     .requests = MakeRequests(prompts, 1),
                     .streams = 1,
                     .total = 1};
    RETURN_IF_ERROR(RunLoad(load).status());
    first_token.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  return Json{{"bench", "start"},
              {"model", options.model.empty() ? "default" : options.model},
              {"device", options.device},
              {"repeats", options.repeats},
              {"ready_seconds", Median(ready)},
              {"first_token_seconds", Median(first_token)}};
}

absl::StatusOr<Json> BenchLoad(const LoadBenchOptions& options) {
  if (options.streams < 1)
    return InvalidArgument("--streams is {}, want at least 1", options.streams);
  if (options.null && !options.target.empty())
    return InvalidArgument("--null and --target contradict each other");
  if (options.step_us > 0 && !options.null) return InvalidArgument("--step-us needs --null");
  ASSIGN_OR_RETURN(const auto prompts, LoadPrompts(options.input));
  const int max_tokens = options.max_tokens > 0 ? options.max_tokens : options.null ? 400 : 64;
  const int requests =
      options.requests > 0 ? options.requests : options.streams * (options.null ? 16 : 4);

  std::unique_ptr<ServerProcess> server;
  LoadOptions load{.target = options.target, .ca_certificate = options.tls_ca};
  if (options.target.empty()) {
    std::vector<std::string> arguments;
    if (!options.model.empty()) arguments = {"--model", options.model};
    if (options.null) arguments.insert(arguments.end(), {"--device", "null"});
    if (options.step_us > 0) {
      arguments.insert(arguments.end(), {"--null-step-us", std::to_string(options.step_us)});
    }
    ASSIGN_OR_RETURN(server, ServerProcess::Start(arguments));
    load.target = server->address();
  }
  Json json = Describe(options, requests, max_tokens);
  if (options.null) {
    load.requests = MakeRequests(prompts, kIdleTokens);
    load.streams = 1;
    load.total = kIdleRequests;
    ASSIGN_OR_RETURN(const LoadResult idle, RunLoad(load));
    json["idle_ttft_ms"] = Percentiles(idle.first_token);
    json["idle_added_ttft_ms"] = Percentiles(idle.added_first_token);
  }
  load.requests = MakeRequests(prompts, max_tokens);
  load.streams = options.streams;
  load.total = requests;
  load.rate = options.rate;
  ASSIGN_OR_RETURN(const LoadResult result, RunLoad(load));
  AddResult(result, &json);
  return json;
}

}  // namespace hanlin::cli
