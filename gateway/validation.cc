// See validation.h.
#include "gateway/validation.h"

#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "common/status/status.h"
#include "tokenizer_svc/core/utf8.h"

namespace hanlin {
namespace {

// A float field: NaN fails every comparison, so it is refused with the rest.
absl::Status CheckRange(std::string_view field, float value, float low, float high, bool open_low) {
  const bool inside = (open_low ? value > low : value >= low) && value <= high;
  if (inside) return absl::OkStatus();
  return InvalidArgument("{} is {}, want a number in {}{}, {}]", field, value, open_low ? '(' : '[',
                         low, high);
}

absl::Status CheckText(std::string_view field, std::string_view text) {
  if (text.empty()) return InvalidArgument("{} is empty, want at least one character", field);
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return InvalidArgument("{} holds a NUL at byte {}, want text without NUL", field, nul);
  }
  if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
    return InvalidArgument("{} is broken at byte {}, want valid UTF-8", field, valid);
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(std::string_view field, const v1::Prompt& prompt) {
  switch (prompt.content_case()) {
    case v1::Prompt::kText:
      return CheckText(fmt::format("{}.text", field), prompt.text());
    case v1::Prompt::kTokenIds:
      if (prompt.token_ids().ids().empty()) {
        return InvalidArgument("{}.token_ids is empty, want at least one id", field);
      }
      for (int i = 0; i < prompt.token_ids().ids_size(); ++i) {
        if (const int32_t id = prompt.token_ids().ids(i); id < 0) {
          return InvalidArgument("{}.token_ids[{}] is {}, want an id of the vocabulary", field, i,
                                 id);
        }
      }
      return absl::OkStatus();
    case v1::Prompt::CONTENT_NOT_SET:
      break;
  }
  return InvalidArgument("{} is not set, want text or token_ids", field);
}

absl::Status CheckSampling(const v1::SamplingParameters& sampling) {
  if (sampling.has_temperature()) {
    RETURN_IF_ERROR(CheckRange("temperature", sampling.temperature(), 0, 100, false));
  }
  if (sampling.has_top_k() && sampling.top_k() < 0) {
    return InvalidArgument("top_k is {}, want at least 0 (0 = off)", sampling.top_k());
  }
  if (sampling.has_top_p()) {
    RETURN_IF_ERROR(CheckRange("top_p", sampling.top_p(), 0, 1, true));
  }
  if (sampling.has_min_p()) {
    RETURN_IF_ERROR(CheckRange("min_p", sampling.min_p(), 0, 1, false));
  }
  if (sampling.has_repetition_penalty()) {
    RETURN_IF_ERROR(CheckRange("repetition_penalty", sampling.repetition_penalty(), 0, 100, true));
  }
  if (sampling.has_presence_penalty()) {
    RETURN_IF_ERROR(CheckRange("presence_penalty", sampling.presence_penalty(), -100, 100, false));
  }
  if (sampling.has_frequency_penalty()) {
    RETURN_IF_ERROR(
        CheckRange("frequency_penalty", sampling.frequency_penalty(), -100, 100, false));
  }
  if (sampling.logit_bias_size() > kMaxLogitBiases) {
    return InvalidArgument("logit_bias has {} entries, want at most {}", sampling.logit_bias_size(),
                           kMaxLogitBiases);
  }
  for (const auto& [id, bias] : sampling.logit_bias()) {
    if (id < 0) return InvalidArgument("logit_bias names id {}, want an id of the vocabulary", id);
    RETURN_IF_ERROR(CheckRange(fmt::format("logit_bias[{}]", id), bias, -1000, 1000, false));
  }
  return absl::OkStatus();
}

absl::Status CheckStopping(const v1::StoppingParameters& stopping) {
  if (stopping.has_max_new_tokens() && stopping.max_new_tokens() < 1) {
    return InvalidArgument("max_new_tokens is {}, want at least 1", stopping.max_new_tokens());
  }
  if (stopping.has_min_new_tokens() && stopping.min_new_tokens() < 0) {
    return InvalidArgument("min_new_tokens is {}, want at least 0", stopping.min_new_tokens());
  }
  if (stopping.has_max_new_tokens() && stopping.min_new_tokens() > stopping.max_new_tokens()) {
    return InvalidArgument("min_new_tokens is {}, want at most max_new_tokens, which is {}",
                           stopping.min_new_tokens(), stopping.max_new_tokens());
  }
  if (stopping.stop_strings_size() > kMaxStopStrings) {
    return InvalidArgument("stop_strings has {} entries, want at most {}",
                           stopping.stop_strings_size(), kMaxStopStrings);
  }
  for (int i = 0; i < stopping.stop_strings_size(); ++i) {
    const std::string& stop = stopping.stop_strings(i);
    const std::string field = fmt::format("stop_strings[{}]", i);
    RETURN_IF_ERROR(CheckText(field, stop));
    if (stop.size() > kMaxStopStringBytes) {
      return InvalidArgument("{} has {} bytes, want at most {}", field, stop.size(),
                             kMaxStopStringBytes);
    }
  }
  if (stopping.stop_ids_size() > kMaxStopIds) {
    return InvalidArgument("stop_ids has {} entries, want at most {}", stopping.stop_ids_size(),
                           kMaxStopIds);
  }
  for (const int32_t id : stopping.stop_ids()) {
    if (id < 0) return InvalidArgument("stop_ids holds {}, want ids of the vocabulary", id);
  }
  if (stopping.has_time_limit_ms() && stopping.time_limit_ms() < 1) {
    return InvalidArgument("time_limit_ms is {}, want at least 1", stopping.time_limit_ms());
  }
  return absl::OkStatus();
}

// Beam search replaces sampling, so a sampling option beside it contradicts it.
absl::Status CheckBeamSearch(const v1::GenerationParameters& parameters) {
  const v1::BeamSearchParameters& beam = parameters.beam_search();
  if (beam.has_beams() && beam.beams() < 1) {
    return InvalidArgument("beam_search.beams is {}, want at least 1", beam.beams());
  }
  if (beam.has_length_penalty() && !std::isfinite(beam.length_penalty())) {
    return InvalidArgument("beam_search.length_penalty is {}, want a finite number",
                           beam.length_penalty());
  }
  const v1::SamplingParameters& sampling = parameters.sampling();
  std::optional<std::string_view> contradiction;
  if (parameters.n() > 1) contradiction = "n";
  if (sampling.has_temperature()) contradiction = "temperature";
  if (sampling.has_top_k()) contradiction = "top_k";
  if (sampling.has_top_p()) contradiction = "top_p";
  if (sampling.has_min_p()) contradiction = "min_p";
  if (sampling.has_seed()) contradiction = "seed";
  if (contradiction.has_value()) {
    return InvalidArgument("beam_search is set together with {}, want one of the two",
                           *contradiction);
  }
  return absl::OkStatus();
}

absl::Status CheckLogprobs(std::string_view field, bool present, int32_t value) {
  if (!present || (value >= 0 && value <= kMaxLogprobs)) return absl::OkStatus();
  return InvalidArgument("{} is {}, want a number in [0, {}]", field, value, kMaxLogprobs);
}

absl::Status CheckParameters(const v1::GenerationParameters& parameters) {
  RETURN_IF_ERROR(CheckSampling(parameters.sampling()));
  RETURN_IF_ERROR(CheckStopping(parameters.stopping()));
  if (parameters.has_n() && parameters.n() < 1) {
    return InvalidArgument("n is {}, want at least 1", parameters.n());
  }
  if (parameters.has_beam_search()) RETURN_IF_ERROR(CheckBeamSearch(parameters));
  RETURN_IF_ERROR(CheckLogprobs("logprobs", parameters.has_logprobs(), parameters.logprobs()));
  RETURN_IF_ERROR(CheckLogprobs("prompt_logprobs", parameters.has_prompt_logprobs(),
                                parameters.prompt_logprobs()));
  return absl::OkStatus();
}

// After everything else, so that a wrong request is told what is wrong with it first.
absl::Status CheckImplemented(const v1::GenerationParameters& parameters) {
  if (parameters.has_beam_search()) return Unimplemented("beam_search is not implemented yet");
  if (parameters.n() > 1) {
    return Unimplemented("n is {}, only 1 is implemented yet", parameters.n());
  }
  if (parameters.has_prompt_logprobs()) {
    return Unimplemented("prompt_logprobs is not implemented yet");
  }
  if (parameters.priority() != 0) {
    return Unimplemented("priority is {}, only 0 is implemented yet", parameters.priority());
  }
  return absl::OkStatus();
}

}  // namespace

std::span<const std::string_view> NotImplemented() {
  static constexpr std::array<std::string_view, 4> kNames = {"n", "beam_search", "prompt_logprobs",
                                                             "priority"};
  return kNames;
}

absl::Status Validate(const v1::StreamGenerateRequest& request) {
  RETURN_IF_ERROR(CheckPrompt("prompt", request.prompt()));
  RETURN_IF_ERROR(CheckParameters(request.parameters()));
  return CheckImplemented(request.parameters());
}

absl::Status Validate(const v1::GenerateRequest& request) {
  if (request.prompts().empty() || request.prompts_size() > kMaxPrompts) {
    return InvalidArgument("prompts has {} entries, want 1 to {}", request.prompts_size(),
                           kMaxPrompts);
  }
  for (int i = 0; i < request.prompts_size(); ++i) {
    RETURN_IF_ERROR(CheckPrompt(fmt::format("prompts[{}]", i), request.prompts(i)));
  }
  RETURN_IF_ERROR(CheckParameters(request.parameters()));
  return CheckImplemented(request.parameters());
}

}  // namespace hanlin
