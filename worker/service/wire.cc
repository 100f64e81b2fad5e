// See wire.h.
#include "worker/service/wire.h"

#include <algorithm>

#include "common/status/status.h"

namespace hanlin {
namespace {

template <typename T>
std::optional<T> Optional(bool present, T value) {
  return present ? std::optional<T>(value) : std::nullopt;
}

SamplingRequest FromWire(const v1::SamplingParameters& in) {
  SamplingRequest out;
  out.temperature = Optional(in.has_temperature(), in.temperature());
  out.top_k = Optional(in.has_top_k(), in.top_k());
  out.top_p = Optional(in.has_top_p(), in.top_p());
  out.min_p = Optional(in.has_min_p(), in.min_p());
  out.repetition_penalty = Optional(in.has_repetition_penalty(), in.repetition_penalty());
  out.presence_penalty = Optional(in.has_presence_penalty(), in.presence_penalty());
  out.frequency_penalty = Optional(in.has_frequency_penalty(), in.frequency_penalty());
  out.seed = Optional<uint64_t>(in.has_seed(), in.seed());
  for (const auto& [id, bias] : in.logit_bias()) out.logit_bias.push_back({id, bias});
  return out;
}

StoppingRequest FromWire(const v1::StoppingParameters& in) {
  StoppingRequest out;
  out.max_new_tokens = Optional(in.has_max_new_tokens(), in.max_new_tokens());
  out.min_new_tokens = Optional(in.has_min_new_tokens(), in.min_new_tokens());
  out.ignore_eos = Optional(in.has_ignore_eos(), in.ignore_eos());
  out.stop_ids.assign(in.stop_ids().begin(), in.stop_ids().end());
  out.time_limit_ms = Optional<int64_t>(in.has_time_limit_ms(), in.time_limit_ms());
  return out;
}

v1::FinishReason ToWire(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kEndToken:
      return v1::FINISH_REASON_END_TOKEN;
    case FinishReason::kTimeLimit:
      return v1::FINISH_REASON_TIME_LIMIT;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void ToWire(const TokenLogprob& in, v1::TokenLogprob* out) {
  out->set_id(in.id);
  out->set_logprob(in.logprob);
}

}  // namespace

GenerationRequest FromWire(v1::WorkerRequest in, absl::Time now) {
  GenerationRequest out;
  out.id = in.id();
  out.request_id = std::move(*in.mutable_request_id());
  out.ids.assign(in.ids().begin(), in.ids().end());
  out.num_prompt_tokens = in.num_prompt_tokens();
  out.sampling = FromWire(in.sampling());
  out.stopping = FromWire(in.stopping());
  out.logprobs = Optional(in.has_logprobs(), in.logprobs());
  out.choice_index = in.choice_index();
  if (in.has_deadline_us()) out.deadline = now + absl::Microseconds(in.deadline_us());
  return out;
}

void ToWire(const RequestEvent& event, v1::RequestEvent* out) {
  out->set_id(event.id);
  for (const int32_t id : event.ids) out->add_ids(id);
  for (const PositionLogprobs& position : event.logprobs) {
    v1::PositionLogprobs* entry = out->add_logprobs();
    ToWire(position.token, entry->mutable_token());
    for (const TokenLogprob& top : position.top) ToWire(top, entry->add_top());
  }
  if (!event.last()) return;
  out->set_finish_reason(ToWire(event.finish_reason));
  if (event.stop_id.has_value()) out->set_stop_id(*event.stop_id);
  out->mutable_usage()->set_prompt_tokens(event.usage.prompt_tokens);
  out->mutable_usage()->set_completion_tokens(event.usage.completion_tokens);
  out->mutable_usage()->set_cached_prompt_tokens(event.usage.cached_prompt_tokens);
  v1::Timings* timings = out->mutable_timings();
  timings->set_queue_us(absl::ToInt64Microseconds(event.timings.queue));
  timings->set_time_to_first_token_us(absl::ToInt64Microseconds(event.timings.time_to_first_token));
  timings->set_total_us(absl::ToInt64Microseconds(event.timings.total));
  timings->set_preemptions(event.timings.preemptions);
  if (!event.error.ok()) {
    out->set_error_code(static_cast<int32_t>(event.error.code()));
    out->set_error_message(Message(event.error));
  }
}

void ToWire(uint64_t id, const SubmitResult& refused, v1::RequestEvent* out) {
  out->set_id(id);
  out->set_error_code(static_cast<int32_t>(refused.status.code()));
  out->set_error_message(Message(refused.status));
  if (refused.retry_after > absl::ZeroDuration()) {
    out->set_retry_after_ms(std::max<int64_t>(1, absl::ToInt64Milliseconds(refused.retry_after)));
  }
}

void ToWire(const EngineLoad& load, v1::WorkerLoad* out) {
  out->set_queued_requests(load.queued_requests);
  out->set_running_requests(load.running_requests);
  out->set_queued_prompt_tokens(load.queued_prompt_tokens);
  out->set_used_kv_blocks(load.used_kv_blocks);
  out->set_total_kv_blocks(load.total_kv_blocks);
  out->set_steps(load.steps);
  out->set_heartbeat(load.heartbeat);
}

void ToWire(const RequestDefaults& defaults, v1::SamplingParameters* out) {
  out->set_temperature(defaults.temperature);
  out->set_top_k(defaults.top_k);
  out->set_top_p(defaults.top_p);
}

}  // namespace hanlin
