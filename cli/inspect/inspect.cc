// `hanlin inspect`: what a model folder (or preset) holds, and what it needs in memory.
#include "model/inspect/inspect.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/output/json.h"
#include "common/flags/flags.h"
#include "common/io/data_dir.h"
#include "common/status/status.h"
#include "model/config/config.h"

namespace hanlin::cli {
namespace {

struct InspectFlags {
  std::string model;
  std::string preset;
  bool tensors = false;
  bool json = false;
};

absl::Status Inspect(const InspectFlags& flags) {
  ModelInspection inspection;
  if (!flags.preset.empty()) {
    ASSIGN_OR_RETURN(const ModelConfig config, Preset(flags.preset));
    inspection = InspectConfig(config);
  } else {
    std::string directory = flags.model;
    if (directory.empty()) {
      ASSIGN_OR_RETURN(directory, DefaultModelDirectory());
    }
    ASSIGN_OR_RETURN(inspection, InspectFolder(directory));
  }
  if (flags.json) {
    PrintJson(ToJson(inspection));
  } else {
    fmt::print("{}", ToText(inspection, flags.tensors));
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspect(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* inspect =
      app.add_subcommand("inspect", "What a model folder holds and what it needs in memory");
  CLI::Option* model = inspect->add_option(
      "--model", flags->model, "Model folder (default: the model that ships with Hanlin)");
  inspect
      ->add_option("--preset", flags->preset, "A preset in place of a folder: base, large, 1.3B, …")
      ->excludes(model);
  inspect->add_flag("--tensors", flags->tensors, "List every tensor");
  inspect->add_flag("--json", flags->json, "One JSON object, tensors included; sizes in bytes");
  inspect->footer(
      "The folder is checked as serving would check it: a model that can be inspected can be "
      "loaded.\n"
      "\n"
      "Examples:\n"
      "  hanlin inspect --model DIR --tensors\n"
      "  hanlin inspect --preset 2.7B");
  inspect->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Inspect(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin inspect", status);
    };
  });
}

}  // namespace hanlin::cli
