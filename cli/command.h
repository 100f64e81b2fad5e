// The subcommands of `hanlin`. Each Add function hangs one command on the application; parsing
// stores what to do in `run`, which main calls afterwards, so that no command runs inside the
// parser.
#ifndef HANLIN_CLI_COMMAND_H_
#define HANLIN_CLI_COMMAND_H_

#include <functional>

namespace CLI {
class App;
}

namespace hanlin::cli {

// Does the work and returns the exit code.
using Runner = std::function<int()>;

void AddServe(CLI::App& app, Runner& run);
void AddGenerate(CLI::App& app, Runner& run);
void AddScore(CLI::App& app, Runner& run);
void AddTokenize(CLI::App& app, Runner& run);
void AddDetokenize(CLI::App& app, Runner& run);
void AddConvert(CLI::App& app, Runner& run);
void AddInspect(CLI::App& app, Runner& run);
void AddBench(CLI::App& app, Runner& run);
void AddTrain(CLI::App& app, Runner& run);
void AddLaunch(CLI::App& app, Runner& run);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_COMMAND_H_
