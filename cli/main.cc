// `hanlin`: the command line of Hanlin. Names, JSON fields and exit codes are a contract
// (docs/user_guide.md): scripts rely on them.
#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "common/flags/flags.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Hanlin serves the Chinese GPT-3 family: gRPC service, text generation, tokenizing, "
      "benchmarks.",
      "hanlin");
  app.footer(
      "Try first:\n"
      "  hanlin serve                              start the service with the default model\n"
      "  hanlin generate --prompt '《春望》杜甫' --stream\n"
      "  hanlin COMMAND --help                     options and examples of a command");
  app.require_subcommand(1);
  hanlin::cli::Runner run;
  hanlin::cli::AddServe(app, run);
  hanlin::cli::AddGenerate(app, run);
  hanlin::cli::AddScore(app, run);
  hanlin::cli::AddTokenize(app, run);
  hanlin::cli::AddDetokenize(app, run);
  hanlin::cli::AddInspect(app, run);
  hanlin::cli::AddConvert(app, run);
  hanlin::cli::AddBench(app, run);
  hanlin::cli::AddTrain(app, run);
  hanlin::cli::AddLaunch(app, run);
  if (const auto code = hanlin::ParseFlags(app, argc, argv, /*environment=*/false)) return *code;
  return hanlin::FinishOutput("hanlin", run());
}
