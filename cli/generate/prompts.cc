// See prompts.h.
#include "cli/generate/prompts.h"

#include <charconv>
#include <iostream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/status/status.h"

namespace hanlin::cli {
namespace {

using nlohmann::json;

absl::StatusOr<v1::Prompt> ParsePromptLine(std::string_view line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object())
    return InvalidArgument("is no JSON object, want {{\"prompt\": \"…\"}} or {{\"ids\": […]}}");
  const bool has_text = object.contains("prompt");
  if (has_text == object.contains("ids")) {
    return InvalidArgument("has {} \"prompt\" {} \"ids\", want exactly one of them",
                           has_text ? "both" : "neither", has_text ? "and" : "nor");
  }
  v1::Prompt prompt;
  if (has_text) {
    const json& text = object["prompt"];
    if (!text.is_string())
      return InvalidArgument("has a \"prompt\" of type {}, want a string", text.type_name());
    prompt.set_text(text.get<std::string>());
    return prompt;
  }
  const json& ids = object["ids"];
  if (!ids.is_array())
    return InvalidArgument("has \"ids\" of type {}, want an array", ids.type_name());
  prompt.mutable_token_ids();
  for (const json& id : ids) {
    const bool fits =
        id.is_number_unsigned() && id.get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!fits) return InvalidArgument("has {} among its \"ids\", want token ids", id.dump());
    prompt.mutable_token_ids()->add_ids(id.get<int32_t>());
  }
  return prompt;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseIds(std::string_view text) {
  std::vector<int32_t> ids;
  while (true) {
    const size_t comma = text.find(',');
    std::string_view entry = text.substr(0, comma);
    while (entry.starts_with(' ')) entry.remove_prefix(1);
    while (entry.ends_with(' ')) entry.remove_suffix(1);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), id);
    if (error != std::errc() || end != entry.data() + entry.size() || id < 0) {
      return InvalidArgument("\"{}\" is no token id, want ids as in 1,2,3", entry);
    }
    ids.push_back(id);
    if (comma == std::string_view::npos) return ids;
    text.remove_prefix(comma + 1);
  }
}

absl::StatusOr<std::vector<v1::Prompt>> ParsePromptLines(std::string_view text) {
  std::vector<v1::Prompt> prompts;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    absl::StatusOr<v1::Prompt> prompt = ParsePromptLine(line);
    if (!prompt.ok()) return InvalidArgument("line {} {}", number, Message(prompt.status()));
    prompts.push_back(*std::move(prompt));
  }
  if (prompts.empty())
    return InvalidArgument("there are no lines, want JSON lines such as {{\"prompt\": \"…\"}}");
  return prompts;
}

absl::StatusOr<std::vector<v1::Prompt>> ReadPrompts(const std::string& input) {
  const bool is_stdin = input == "-";
  std::string text;
  if (is_stdin) {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    ASSIGN_OR_RETURN(text, ReadFile(input));
  }
  absl::StatusOr<std::vector<v1::Prompt>> prompts = ParsePromptLines(text);
  if (!prompts.ok()) return Annotate(prompts.status(), is_stdin ? "standard input" : input);
  return prompts;
}

}  // namespace hanlin::cli
