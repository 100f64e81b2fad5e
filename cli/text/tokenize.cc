// `hanlin tokenize` and `hanlin detokenize`: what the tokenizer makes of a text, and what a list of
// ids decodes to.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/generate/prompts.h"
#include "cli/model/model_flags.h"
#include "cli/output/json.h"
#include "common/flags/flags.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/tokenizer.h"

namespace hanlin::cli {
namespace {

struct TokenizeFlags {
  std::string model;
  std::optional<std::string> text;
  bool json = false;
};

struct DetokenizeFlags {
  std::string model;
  std::string ids;
  bool json = false;
};

Json EncodingJson(const Encoding& encoding, const Tokenizer& tokenizer) {
  Json object;
  object["segments"] = encoding.segments.has_value() ? Json(*encoding.segments) : Json(nullptr);
  object["ids"] = encoding.ids;
  Json& offsets = object["offsets"] = Json::array();
  for (const auto& [begin, end] : encoding.offsets) offsets.push_back({begin, end});
  object["fingerprint"] = tokenizer.fingerprint();
  return object;
}

// Ids and the text behind each: "3421:春 17:风".
std::string EncodingText(std::string_view text, const Encoding& encoding) {
  std::string line;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const auto [begin, end] = encoding.offsets[i];
    line +=
        fmt::format("{}{}:{}", i == 0 ? "" : " ", encoding.ids[i], text.substr(begin, end - begin));
  }
  return line;
}

absl::Status TokenizeOne(const Tokenizer& tokenizer, std::string_view text, bool json) {
  ASSIGN_OR_RETURN(const Encoding encoding, tokenizer.Encode(text));
  if (json) {
    PrintJson(EncodingJson(encoding, tokenizer));
  } else {
    fmt::print("{}\n", EncodingText(text, encoding));
  }
  return absl::OkStatus();
}

absl::Status Tokenize(const TokenizeFlags& flags) {
  ASSIGN_OR_RETURN(const auto tokenizer, LoadModelTokenizer(flags.model));
  if (flags.text.has_value()) return TokenizeOne(*tokenizer, *flags.text, flags.json);
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    const absl::Status status = TokenizeOne(*tokenizer, line, flags.json);
    if (!status.ok()) return Annotate(status, fmt::format("line {}", number));
  }
  return absl::OkStatus();
}

absl::Status Detokenize(const DetokenizeFlags& flags) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseIds(flags.ids));
  ASSIGN_OR_RETURN(const auto tokenizer, LoadModelTokenizer(flags.model));
  const std::string text = StreamDecoder::Decode(*tokenizer->decoder_spec(), ids);
  if (flags.json) {
    PrintJson({{"text", text}});
  } else {
    fmt::print("{}\n", text);
  }
  return absl::OkStatus();
}

constexpr char kModelHelp[] = "Folder with a tokenizer (default: the model that ships with Hanlin)";

}  // namespace

void AddTokenize(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "Cut a text into tokens");
  tokenize->add_option("--model", flags->model, kModelHelp);
  tokenize->add_option("--text", flags->text, "The text; without it each line of stdin is one");
  tokenize->add_flag("--json", flags->json,
                     "Segments, ids, byte offsets and the tokenizer's fingerprint");
  tokenize->footer(
      "Examples:\n"
      "  hanlin tokenize --text '春风又绿江南岸'\n"
      "  hanlin tokenize --json < lines.txt > tokens.jsonl");
  tokenize->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Tokenize(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin tokenize", status);
    };
  });
}

void AddDetokenize(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<DetokenizeFlags>();
  CLI::App* detokenize =
      app.add_subcommand("detokenize", "Turn token ids into text; special tokens are skipped");
  detokenize->add_option("--model", flags->model, kModelHelp);
  detokenize->add_option("--ids", flags->ids, "Token ids: 1,2,3")->required();
  detokenize->add_flag("--json", flags->json, "{\"text\": …}");
  detokenize->footer("Example:\n  hanlin detokenize --ids 316,402,77");
  detokenize->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Detokenize(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin detokenize", status);
    };
  });
}

}  // namespace hanlin::cli
