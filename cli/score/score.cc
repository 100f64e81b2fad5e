// `hanlin score`: how probable a text is, token by token, in natural logarithms; its perplexity.
#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/generate/prompts.h"
#include "cli/model/model_flags.h"
#include "cli/output/json.h"
#include "common/flags/flags.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/tokenizer.h"
#include "worker/engine/local.h"

namespace hanlin::cli {
namespace {

struct ScoreFlags {
  ModelFlags model;
  std::optional<std::string> text;
  std::optional<std::string> ids;
  bool json = false;
};

absl::StatusOr<std::vector<int32_t>> MakeIds(const ScoreFlags& flags) {
  if (flags.text.has_value() == flags.ids.has_value()) {
    return InvalidArgument("{} of --text and --ids are given, want exactly one",
                           flags.text.has_value() ? 2 : 0);
  }
  if (flags.ids.has_value()) return ParseIds(*flags.ids);
  if (flags.text->empty()) return InvalidArgument("--text is empty, want at least one character");
  ASSIGN_OR_RETURN(const auto tokenizer, LoadModelTokenizer(flags.model));
  ASSIGN_OR_RETURN(Encoding encoding, tokenizer->EncodePrompt(*flags.text));
  return std::move(encoding.ids);
}

absl::Status Score(const ScoreFlags& flags) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, MakeIds(flags));
  ASSIGN_OR_RETURN(const auto model, LoadModel(flags.model, /*scoring=*/true));
  ASSIGN_OR_RETURN(const auto logprobs, model->Score(ids));
  Json list = Json::array();
  double nll = 0;
  for (const std::optional<double>& logprob : logprobs) {
    list.push_back(logprob.has_value() ? Json(*logprob) : Json(nullptr));
    nll -= logprob.value_or(0);
  }
  if (nll == 0) nll = 0;  // not -0
  const bool has_ppl = ids.size() > 1;
  const double ppl = has_ppl ? std::exp(nll / static_cast<double>(ids.size() - 1)) : 0;
  if (flags.json) {
    PrintJson({{"ids", ids},
               {"logprobs", list},
               {"nll", nll},
               {"ppl", has_ppl ? Json(ppl) : Json(nullptr)}});
  } else if (has_ppl) {
    fmt::print("{} tokens, negative log-likelihood {:.6f} nat, perplexity {:.4f}\n", ids.size(),
               nll, ppl);
  } else {
    fmt::print("1 token, nothing to score: the first token has no log-probability\n");
  }
  return absl::OkStatus();
}

}  // namespace

void AddScore(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<ScoreFlags>();
  CLI::App* score = app.add_subcommand("score", "Log-probabilities and perplexity of a text");
  score->add_option("--text", flags->text, "The text; nothing is appended to it");
  score->add_option("--ids", flags->ids, "Token ids in place of a text: 1,2,3");
  AddModelFlags(*score, flags->model);
  score->add_flag("--json", flags->json,
                  "Ids, log-probabilities, their negative sum and the perplexity");
  score->footer(
      "Computes in fp32 unless --dtype says otherwise.\n"
      "\n"
      "Example:\n"
      "  hanlin score --text '床前明月光，疑是地上霜。' --json");
  score->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Score(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin score", status);
    };
  });
}

}  // namespace hanlin::cli
