// `hanlin convert`: a model folder of any layout as one of Hugging Face's.
#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/convert/convert.h"
#include "cli/output/json.h"
#include "common/flags/flags.h"
#include "common/status/status.h"

namespace hanlin::cli {

void AddConvert(CLI::App& app, Runner& run) {
  auto options = std::make_shared<ConvertOptions>();
  auto json = std::make_shared<bool>(false);
  CLI::App* convert =
      app.add_subcommand("convert", "Write a model folder of any layout in Hugging Face's");
  convert->add_option("--from", options->from, "Model folder")->required();
  convert->add_option("--to", options->to, "Folder to write; must not exist")->required();
  convert->add_option("--format", options->format, "hf, the only one that is written")
      ->capture_default_str();
  convert->add_option("--dtype", options->dtype, "fp32 or bf16: what the weights are stored as")
      ->capture_default_str();
  convert->add_flag("--json", *json, "The result as one JSON object");
  convert->footer(
      "fp32 keeps every bit of fp32, fp16 and bf16 weights. Shards are joined, the tokenizer's "
      "files "
      "copied.\n"
      "\n"
      "Example:\n"
      "  hanlin convert --from nlp_gpt3_text-generation_1.3B --to gpt3-1.3b --dtype bf16");
  convert->callback([options, json, &run] {
    run = [options, json] {
      const absl::StatusOr<int64_t> parameters = Convert(*options);
      if (!parameters.ok()) return ReportError("hanlin convert", parameters.status());
      if (*json) {
        PrintJson({{"from", options->from},
                   {"to", options->to},
                   {"format", options->format},
                   {"dtype", options->dtype},
                   {"parameters", *parameters}});
      } else {
        fmt::print("{} parameters in {} written to {}\n", *parameters, options->dtype, options->to);
      }
      return kExitOk;
    };
  });
}

}  // namespace hanlin::cli
