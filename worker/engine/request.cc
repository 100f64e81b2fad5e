// Defaults and checks of requests: the one place, shared by the worker's service and the in-process
// engine.
#include "worker/engine/request.h"

#include <cmath>
#include <limits>
#include <random>
#include <string_view>

#include "common/status/status.h"

namespace hanlin {
namespace {

// A number of [low, high]; NaN is out of every range.
absl::Status CheckRange(std::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}, want a number in [{}, {}]", field, value, low, high);
}

// Likewise of (low, high].
absl::Status CheckRangeOpenBelow(std::string_view field, double value, double low, double high) {
  if (value > low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}, want a number in ({}, {}]", field, value, low, high);
}

absl::Status CheckId(std::string_view field, int32_t id, const ModelConfig& config) {
  if (id >= 0 && id < config.vocab_size) return absl::OkStatus();
  return InvalidArgument("{} holds the id {}, want ids in [0, {})", field, id, config.vocab_size);
}

absl::Status CheckIds(const GenerationRequest& request, const ModelConfig& config) {
  if (request.num_prompt_tokens < 1) {
    return InvalidArgument("the prompt is empty, want at least one token");
  }
  if (static_cast<size_t>(request.num_prompt_tokens) > request.ids.size()) {
    return InvalidArgument("num_prompt_tokens is {}, want at most the {} ids given",
                           request.num_prompt_tokens, request.ids.size());
  }
  if (request.num_prompt_tokens >= config.max_positions) {
    return InvalidArgument(
        "the prompt has {} tokens, want at most {}: the context holds {} and one more is to be "
        "generated",
        request.num_prompt_tokens, config.max_positions - 1, config.max_positions);
  }
  for (const int32_t id : request.ids) RETURN_IF_ERROR(CheckId("ids", id, config));
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> ResolveSampling(const SamplingRequest& request,
                                               const ModelConfig& config) {
  const RequestDefaults defaults = DefaultsOf(config);
  SamplingParams params;
  params.temperature = request.temperature.value_or(defaults.temperature);
  params.top_k = request.top_k.value_or(std::min(defaults.top_k, config.vocab_size));
  params.top_p = request.top_p.value_or(defaults.top_p);
  params.min_p = request.min_p.value_or(0.0f);
  params.repetition_penalty = request.repetition_penalty.value_or(1.0f);
  params.presence_penalty = request.presence_penalty.value_or(0.0f);
  params.frequency_penalty = request.frequency_penalty.value_or(0.0f);
  RETURN_IF_ERROR(CheckRange("temperature", params.temperature, 0, 100));
  RETURN_IF_ERROR(CheckRange("top_k", params.top_k, 0, config.vocab_size));
  RETURN_IF_ERROR(CheckRangeOpenBelow("top_p", params.top_p, 0, 1));
  RETURN_IF_ERROR(CheckRange("min_p", params.min_p, 0, 1));
  RETURN_IF_ERROR(CheckRangeOpenBelow("repetition_penalty", params.repetition_penalty, 0, 100));
  RETURN_IF_ERROR(CheckRange("presence_penalty", params.presence_penalty, -100, 100));
  RETURN_IF_ERROR(CheckRange("frequency_penalty", params.frequency_penalty, -100, 100));
  if (request.logit_bias.size() > kMaxLogitBias) {
    return InvalidArgument("logit_bias has {} entries, want at most {}", request.logit_bias.size(),
                           kMaxLogitBias);
  }
  for (const LogitBias& entry : request.logit_bias) {
    RETURN_IF_ERROR(CheckId("logit_bias", entry.id, config));
    RETURN_IF_ERROR(CheckRange("logit_bias", entry.bias, -1000, 1000));
  }
  if (request.seed.has_value()) {
    params.seed = *request.seed;
  } else {
    std::random_device device;
    params.seed = (uint64_t{device()} << 32) | device();
  }
  return params;
}

absl::Status ResolveStopping(const GenerationRequest& request, const ModelConfig& config,
                             ResolvedRequest* resolved) {
  const StoppingRequest& stopping = request.stopping;
  const int32_t room = config.max_positions - request.num_prompt_tokens;
  resolved->max_new_tokens =
      stopping.max_new_tokens.value_or(std::min(DefaultsOf(config).max_new_tokens, room));
  if (resolved->max_new_tokens < 1 || resolved->max_new_tokens > room) {
    return InvalidArgument(
        "max_new_tokens is {}, want 1 to {}: the context holds {} tokens and the prompt has {}",
        resolved->max_new_tokens, room, config.max_positions, request.num_prompt_tokens);
  }
  const int64_t generated = static_cast<int64_t>(request.ids.size()) - request.num_prompt_tokens;
  if (generated >= resolved->max_new_tokens) {
    return InvalidArgument("{} tokens were generated already, want fewer than max_new_tokens = {}",
                           generated, resolved->max_new_tokens);
  }
  resolved->min_new_tokens = stopping.min_new_tokens.value_or(0);
  if (resolved->min_new_tokens < 0 || resolved->min_new_tokens > resolved->max_new_tokens) {
    return InvalidArgument("min_new_tokens is {}, want 0 to max_new_tokens = {}",
                           resolved->min_new_tokens, resolved->max_new_tokens);
  }
  resolved->ignore_eos = stopping.ignore_eos.value_or(false);
  if (stopping.stop_ids.size() > kMaxStopIds) {
    return InvalidArgument("stop_ids has {} entries, want at most {}", stopping.stop_ids.size(),
                           kMaxStopIds);
  }
  for (const int32_t id : stopping.stop_ids) RETURN_IF_ERROR(CheckId("stop_ids", id, config));
  resolved->stop_ids = stopping.stop_ids;
  if (stopping.time_limit_ms.has_value()) {
    if (*stopping.time_limit_ms < 1) {
      return InvalidArgument("time_limit_ms is {}, want at least 1", *stopping.time_limit_ms);
    }
    resolved->time_limit = absl::Milliseconds(*stopping.time_limit_ms);
  }
  return absl::OkStatus();
}

}  // namespace

RequestDefaults DefaultsOf(const ModelConfig& config) {
  RequestDefaults defaults;
  const GenerationDefaults& from = config.generation;
  defaults.temperature = from.temperature.value_or(defaults.temperature);
  defaults.top_k = from.top_k.value_or(defaults.top_k);
  defaults.top_p = from.top_p.value_or(defaults.top_p);
  // ModelScope writes "off" as 0.
  if (defaults.top_p == 0.0f) defaults.top_p = 1.0f;
  defaults.max_new_tokens = from.tokens_to_generate.value_or(defaults.max_new_tokens);
  return defaults;
}

absl::StatusOr<ResolvedRequest> ResolveRequest(GenerationRequest request,
                                               const ModelConfig& config) {
  RETURN_IF_ERROR(CheckIds(request, config));
  ResolvedRequest resolved;
  ASSIGN_OR_RETURN(resolved.sampling, ResolveSampling(request.sampling, config));
  RETURN_IF_ERROR(ResolveStopping(request, config, &resolved));
  if (request.logprobs.has_value()) {
    RETURN_IF_ERROR(CheckRange("logprobs", *request.logprobs, 0, kMaxLogprobs));
    resolved.logprobs = std::min(*request.logprobs, config.vocab_size);
  }
  if (request.choice_index < 0) {
    return InvalidArgument("choice_index is {}, want at least 0", request.choice_index);
  }
  resolved.sampling.choice = static_cast<uint32_t>(request.choice_index);
  resolved.id = request.id;
  resolved.request_id = std::move(request.request_id);
  resolved.num_prompt_tokens = request.num_prompt_tokens;
  resolved.ids = std::move(request.ids);
  resolved.logit_bias = std::move(request.sampling.logit_bias);
  resolved.deadline = request.deadline;
  return resolved;
}

std::string_view ToString(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEndToken:
      return "end_token";
    case FinishReason::kTimeLimit:
      return "time_limit";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

}  // namespace hanlin
