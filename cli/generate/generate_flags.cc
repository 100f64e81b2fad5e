// See generate_flags.h. Options set fields of the proto directly, so an option that is not given
// stays unset.
#include "cli/generate/generate_flags.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "cli/generate/prompts.h"
#include "common/flags/flags.h"
#include "common/status/status.h"
#include "gateway/validation.h"

namespace hanlin::cli {
namespace {

void AddSamplingFlags(CLI::App& command, GenerateFlags& flags) {
  v1::SamplingParameters* sampling = flags.parameters.mutable_sampling();
  const std::string group = "Sampling (unset: the model's config.json, else the default named)";
  command.add_flag("--greedy", flags.greedy, "Always the most probable token")->group(group);
  const auto number = [&](const std::string& name, auto set, const std::string& help) {
    command
        .add_option_function<float>(
            name, [set](const float& value) { set(value); }, help)
        ->type_name("FLOAT")
        ->group(group);
  };
  number(
      "--temperature", [=](float v) { sampling->set_temperature(v); },
      "Divides the logits; 0 = greedy; 1");
  command
      .add_option_function<int32_t>(
          "--top-k", [=](const int32_t& v) { sampling->set_top_k(v); },
          "Keep the K most probable; 0 = off")
      ->type_name("INT")
      ->group(group);
  number(
      "--top-p", [=](float v) { sampling->set_top_p(v); },
      "Keep the most probable that together reach P; 0.9");
  number(
      "--min-p", [=](float v) { sampling->set_min_p(v); },
      "Drop what is less probable than P times the first; 0");
  number(
      "--repetition-penalty", [=](float v) { sampling->set_repetition_penalty(v); },
      "Divides the logits of tokens seen; 1");
  number(
      "--presence-penalty", [=](float v) { sampling->set_presence_penalty(v); },
      "Subtracted from the logits of tokens seen; 0");
  number(
      "--frequency-penalty", [=](float v) { sampling->set_frequency_penalty(v); },
      "Subtracted once per occurrence; 0");
  command
      .add_option("--logit-bias", flags.logit_bias,
                  "ID=VALUE, added to that token's logit; repeatable")
      ->type_name("ID=VALUE")
      ->group(group);
  command
      .add_option_function<uint64_t>(
          "--seed", [=](const uint64_t& v) { sampling->set_seed(v); },
          "Same seed, same text; else one is drawn")
      ->check(NonNegativeNumber)
      ->type_name("UINT")
      ->group(group);
}

void AddStoppingFlags(CLI::App& command, GenerateFlags& flags) {
  v1::StoppingParameters* stopping = flags.parameters.mutable_stopping();
  const std::string group = "Length and stops";
  const auto count = [&](const std::string& name, auto set, const std::string& help) {
    command
        .add_option_function<int32_t>(
            name, [set](const int32_t& value) { set(value); }, help)
        ->type_name("INT")
        ->group(group);
  };
  count(
      "--max-tokens", [=](int32_t v) { stopping->set_max_new_tokens(v); },
      "Most tokens to generate");
  count(
      "--min-tokens", [=](int32_t v) { stopping->set_min_new_tokens(v); },
      "Tokens before anything may end the text");
  command
      .add_option_function<std::vector<std::string>>(
          "--stop",
          [=](const std::vector<std::string>& stops) {
            for (const std::string& stop : stops) stopping->add_stop_strings(stop);
          },
          "Text that ends generation; repeatable")
      ->type_name("TEXT")
      ->group(group);
  command.add_option("--stop-ids", flags.stop_ids, "Token ids that end generation: 1,2,3")
      ->group(group);
  command
      .add_flag_callback(
          "--include-stop", [=] { stopping->set_include_stop(true); }, "Keep the stop in the text")
      ->group(group);
  command
      .add_flag_callback(
          "--ignore-eos", [=] { stopping->set_ignore_eos(true); }, "Go on through end tokens")
      ->group(group);
  command
      .add_option_function<int64_t>(
          "--time-limit-ms", [=](const int64_t& v) { stopping->set_time_limit_ms(v); },
          "Return what was generated until then")
      ->type_name("INT")
      ->group(group);
}

absl::StatusOr<std::vector<v1::Prompt>> MakePrompts(const GenerateFlags& flags) {
  const int given = flags.prompt.has_value() + flags.ids.has_value() + !flags.input.empty();
  if (given != 1) {
    return InvalidArgument("{} of --prompt, --ids and --input are given, want exactly one", given);
  }
  if (!flags.input.empty()) return ReadPrompts(flags.input);
  v1::Prompt prompt;
  if (flags.prompt.has_value()) {
    prompt.set_text(*flags.prompt);
  } else {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseIds(*flags.ids));
    prompt.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  return std::vector<v1::Prompt>{prompt};
}

absl::Status AddLogitBias(const std::string& text, v1::SamplingParameters* sampling) {
  const size_t equals = text.find('=');
  int32_t id = -1;
  float value = 0;
  const char* end = text.data() + text.size();
  bool good = equals != std::string::npos;
  if (good) {
    const auto left = std::from_chars(text.data(), text.data() + equals, id);
    const auto right = std::from_chars(text.data() + equals + 1, end, value);
    good = left.ec == std::errc() && left.ptr == text.data() + equals && right.ec == std::errc() &&
           right.ptr == end;
  }
  if (!good) return InvalidArgument("--logit-bias is \"{}\", want ID=VALUE such as 17=-5.5", text);
  (*sampling->mutable_logit_bias())[id] = value;
  return absl::OkStatus();
}

absl::StatusOr<v1::GenerationParameters> MakeParameters(const GenerateFlags& flags) {
  v1::GenerationParameters parameters = flags.parameters;
  v1::SamplingParameters* sampling = parameters.mutable_sampling();
  if (flags.greedy) {
    if (sampling->has_temperature() && sampling->temperature() != 0) {
      return InvalidArgument("--greedy and --temperature {} contradict each other",
                             sampling->temperature());
    }
    sampling->set_temperature(0);
  }
  for (const std::string& bias : flags.logit_bias) RETURN_IF_ERROR(AddLogitBias(bias, sampling));
  if (!flags.stop_ids.empty()) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseIds(flags.stop_ids));
    parameters.mutable_stopping()->mutable_stop_ids()->Add(ids.begin(), ids.end());
  }
  return parameters;
}

}  // namespace

void AddGenerateFlags(CLI::App& command, GenerateFlags& flags) {
  command.add_option("--prompt", flags.prompt, "Text to continue")->type_name("TEXT");
  command.add_option("--ids", flags.ids, "Token ids to continue: 1,2,3");
  command.add_option(
      "--input", flags.input,
      "File of JSON lines, - for standard input: {\"prompt\": \"…\"} or {\"ids\": […]}");
  command
      .add_option("--target", flags.target,
                  "HOST:PORT of a server, in place of a model in this process")
      ->check(ServerAddress);
  command.add_option("--tls-ca", flags.tls_ca,
                     "PEM certificate to check the server by: connect over TLS");
  command.add_option("--timeout", flags.timeout_seconds, "Seconds that a server has for a request")
      ->check(PositiveNumber)
      ->capture_default_str();
  AddModelFlags(command, flags.model);
  for (const std::string name :
       {"--model", "--random-weights", "--device", "--dtype", "--tp", "--threads", "--kv-memory"}) {
    command.get_option("--target")->excludes(command.get_option(name));
  }
  AddStoppingFlags(command, flags);
  AddSamplingFlags(command, flags);
  command.add_flag_callback(
      "--echo", [&flags] { flags.parameters.set_echo(true); }, "Prepend the prompt to the text");
  command
      .add_option_function<int32_t>(
          "--logprobs", [&flags](const int32_t& v) { flags.parameters.set_logprobs(v); },
          "With --json: log-probabilities, with N alternatives a token")
      ->type_name("N");
  command.add_flag("--stream", flags.stream, "Print the text as it comes");
  command.add_flag("--json", flags.json,
                   "One JSON object a continuation; with --stream one a piece");
}

absl::StatusOr<std::vector<v1::StreamGenerateRequest>> MakeRequests(const GenerateFlags& flags) {
  ASSIGN_OR_RETURN(const std::vector<v1::Prompt> prompts, MakePrompts(flags));
  ASSIGN_OR_RETURN(const v1::GenerationParameters parameters, MakeParameters(flags));
  std::vector<v1::StreamGenerateRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    v1::StreamGenerateRequest request;
    *request.mutable_prompt() = prompts[i];
    *request.mutable_parameters() = parameters;
    const absl::Status valid = Validate(request);
    if (!valid.ok())
      return prompts.size() > 1 ? Annotate(valid, fmt::format("prompt {}", i + 1)) : valid;
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace hanlin::cli
