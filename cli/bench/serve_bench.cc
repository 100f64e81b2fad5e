// See serve_bench.h.
#include "cli/bench/serve_bench.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "cli/bench/server_process.h"
#include "cli/bench/service_bench.h"
#include "common/host/host.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

// A request that takes longer has failed: a hang must not hold up the measurement.
constexpr absl::Duration kRequestTimeout = absl::Minutes(2);

int Shortest(int mean) { return std::max(1, mean / 4); }
int Longest(int mean) { return std::max(1, mean * 2 - Shortest(mean)); }

int DrawLength(int mean, std::mt19937_64& random) {
  const int shortest = Shortest(mean);
  return shortest + static_cast<int>(random() % (Longest(mean) - shortest + 1));
}

std::vector<std::string> ServeArguments(const ServeBenchOptions& options) {
  std::vector<std::string> arguments = {"--device", options.device, "--dtype", options.dtype};
  if (!options.preset.empty()) {
    arguments.insert(arguments.end(), {"--model", options.preset, "--random-weights"});
  } else if (!options.model.empty()) {
    arguments.insert(arguments.end(), {"--model", options.model});
  }
  if (options.batch_invariant) arguments.push_back("--batch-invariant");
  if (!options.kv_memory.empty()) {
    arguments.insert(arguments.end(), {"--kv-memory", options.kv_memory});
  }
  return arguments;
}

absl::Status CheckOptions(const ServeBenchOptions& options) {
  if (options.concurrency < 1)
    return InvalidArgument("--concurrency is {}, want at least 1", options.concurrency);
  if (options.requests < 1)
    return InvalidArgument("--requests is {}, want at least 1", options.requests);
  if (!(options.seconds > 0))
    return InvalidArgument("--seconds is {}, want more than 0", options.seconds);
  if (options.prompt_tokens < 1 || options.output_tokens < 1) {
    return InvalidArgument("--prompt-tokens is {} and --output-tokens {}, want at least 1",
                           options.prompt_tokens, options.output_tokens);
  }
  if ((options.decode_ms > 0) != (options.prefill_ms_per_1k > 0))
    return InvalidArgument("--decode-ms and --prefill-ms-per-1k go together");
  return absl::OkStatus();
}

absl::Status CheckRoom(const ServeBenchOptions& options, const v1::GetModelInfoResponse& info) {
  const int most = Longest(options.prompt_tokens) + Longest(options.output_tokens);
  if (most <= info.context_tokens()) return absl::OkStatus();
  return InvalidArgument(
      "--prompt-tokens {} and --output-tokens {} make requests of up to {} tokens, want at most {}",
      options.prompt_tokens, options.output_tokens, most, info.context_tokens());
}

Json Describe(const ServeBenchOptions& options, const v1::GetModelInfoResponse& info) {
  return {{"bench", "serve"},
          {"model", info.model()},
          {"device", options.target.empty() ? options.device : "unknown"},
          {"dtype", info.dtype()},
          {"target", options.target.empty() ? "own service" : options.target},
          {"cpus", AvailableCpus()},
          {"concurrency", options.concurrency},
          {"mean_prompt_tokens", options.prompt_tokens},
          {"mean_output_tokens", options.output_tokens},
          {"sampling", options.greedy ? "greedy" : "the model's"},
          {"seed", options.seed}};
}

// What happened in the steady state, counted request by request.
class SteadyState {
 public:
  SteadyState(double begin, double end) : begin_(begin), end_(end) {}

  void Add(const RequestTrace& trace) {
    double last = trace.sent;
    for (size_t i = 0; i < trace.pieces.size(); ++i) {
      const RequestTrace::Piece& piece = trace.pieces[i];
      AddWait(last, piece.time);
      if (Inside(piece.time)) {
        output_tokens += piece.ids;
        ++messages;
        if (i == 0) prompt_tokens += trace.prompt_tokens;
        (i == 0 ? first_token : gap).push_back(piece.time - last);
      }
      last = piece.time;
    }
    if (!trace.ok) AddWait(last, trace.end);
    if (trace.ok && Inside(trace.end)) AddEnded(trace);
  }

  int64_t output_tokens = 0;
  int64_t prompt_tokens = 0;  // of prompts whose first token came
  int64_t messages = 0;
  double longest_wait = 0;
  std::vector<double> first_token;
  std::vector<double> gap;
  std::vector<double> per_token;
  std::vector<double> whole;

 private:
  bool Inside(double time) const { return time >= begin_ && time < end_; }

  void AddWait(double from, double to) {
    if (to >= begin_ && from < end_) longest_wait = std::max(longest_wait, to - from);
  }

  void AddEnded(const RequestTrace& trace) {
    whole.push_back(trace.end - trace.sent);
    int64_t tokens = 0;
    for (const RequestTrace::Piece& piece : trace.pieces) tokens += piece.ids;
    if (tokens > 1) {
      per_token.push_back((trace.pieces.back().time - trace.pieces.front().time) /
                          static_cast<double>(tokens - 1));
    }
  }

  const double begin_;
  const double end_;
};

}  // namespace

v1::StreamGenerateRequest MakeServeRequest(const ServeBenchOptions& options, int vocabulary,
                                           int index) {
  std::seed_seq seed{options.seed, options.seed >> 32, static_cast<uint64_t>(index)};
  std::mt19937_64 random(seed);
  v1::StreamGenerateRequest request;
  const int prompt_tokens = DrawLength(options.prompt_tokens, random);
  auto* ids = request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  ids->Reserve(prompt_tokens);
  for (int i = 0; i < prompt_tokens; ++i) ids->Add(static_cast<int32_t>(random() % vocabulary));
  v1::StoppingParameters* stopping = request.mutable_parameters()->mutable_stopping();
  stopping->set_max_new_tokens(DrawLength(options.output_tokens, random));
  stopping->set_ignore_eos(true);
  v1::SamplingParameters* sampling = request.mutable_parameters()->mutable_sampling();
  sampling->set_seed(random());
  if (options.greedy) sampling->set_temperature(0);
  return request;
}

Json SummarizeSteadyState(const LoadResult& load) {
  SteadyState state(load.steady_begin, load.steady_end);
  for (const RequestTrace& trace : load.traces) state.Add(trace);
  const double seconds = load.steady_end - load.steady_begin;
  const auto output_tokens = static_cast<double>(state.output_tokens);
  const auto prompt_tokens = static_cast<double>(state.prompt_tokens);
  const auto messages = static_cast<double>(state.messages);
  const Json gap = Percentiles(state.gap);
  return {
      {"steady_seconds", seconds},
      {"requests", state.whole.size()},
      {"requests_per_second", static_cast<double>(state.whole.size()) / seconds},
      {"output_tokens_per_second", output_tokens / seconds},
      {"prompt_tokens_per_second", prompt_tokens / seconds},
      {"prompt_tokens_per_output", prompt_tokens / std::max(output_tokens, 1.0)},
      {"messages_per_second", messages / seconds},
      {"ids_per_message", output_tokens / std::max(messages, 1.0)},
      {"ttft_ms", Percentiles(state.first_token)},
      {"tpot_ms", Percentiles(state.per_token)},
      {"itl_ms", gap},
      {"e2el_ms", Percentiles(state.whole)},
      {"itl_p99_over_median",
       gap.is_null() ? Json(nullptr) : Json(gap["p99"].get<double>() / gap["p50"].get<double>())},
      {"longest_wait_ms", state.longest_wait * 1e3},
      {"errors", Json(load.errors)}};
}

double RawTokensPerSecond(const ServeBenchOptions& options, double prompt_per_output) {
  const double decode = options.decode_ms * 1e-3 / options.concurrency;
  const double prefill = options.prefill_ms_per_1k * 1e-6;
  return 1 / (decode + prompt_per_output * prefill);
}

absl::StatusOr<Json> BenchServe(const ServeBenchOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<ServerProcess> server;
  LoadOptions load{.target = options.target,
                   .ca_certificate = options.tls_ca,
                   .streams = options.concurrency,
                   .total = options.requests,
                   .request_timeout = kRequestTimeout,
                   .steady = absl::Seconds(options.seconds)};
  if (options.target.empty()) {
    ASSIGN_OR_RETURN(server, ServerProcess::Start(ServeArguments(options)));
    load.target = server->address();
  }
  ASSIGN_OR_RETURN(const auto info, FetchModelInfo(load.target, load.ca_certificate));
  RETURN_IF_ERROR(CheckRoom(options, info));
  load.make_request = [&](int index) {
    return MakeServeRequest(options, info.vocabulary_size(), index);
  };
  ASSIGN_OR_RETURN(const LoadResult result, RunLoad(load));
  Json json = Describe(options, info);
  json.update(SummarizeSteadyState(result));
  if (options.decode_ms > 0) {
    const double raw = RawTokensPerSecond(options, json["prompt_tokens_per_output"].get<double>());
    json["raw_tokens_per_second"] = raw;
    json["share"] = json["output_tokens_per_second"].get<double>() / raw;
  }
  return json;
}

}  // namespace hanlin::cli
