// `hanlin train`: one rank of a training run; the recipe says the rest. Started alone it is the
// whole run, started by `hanlin launch`, torchrun or the like it finds the others by the
// environment they set. SIGTERM and SIGINT save a checkpoint and end the run with exit code 0; a
// second one ends it at once.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "cli/command.h"
#include "cli/output/json.h"
#include "cli/train/console.h"
#include "common/flags/flags.h"
#include "common/host/host.h"
#include "common/status/status.h"
#include "trainer/log/run_log.h"
#include "trainer/loop/trainer.h"
#include "trainer/parallel/ranks.h"

namespace hanlin::cli {
namespace {

struct TrainFlags {
  std::string config;
  std::vector<std::string> overrides;
  bool json = false;
};

volatile sig_atomic_t stop_signals = 0;

void OnSignal(int signal_number) {
  stop_signals = stop_signals + 1;
  if (stop_signals == 1) return;
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void CatchSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

std::optional<std::string> Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

void PrintSummary(const TrainFlags& flags, const TrainConfig& config, const RunSummary& summary) {
  const RunState& state = summary.state;
  if (flags.json) {
    const bool evaluated = state.best_step > 0;
    PrintJson({{"end", summary.end},
               {"step", state.step},
               {"loss", summary.last_loss},
               {"best_step", evaluated ? Json(state.best_step) : Json(nullptr)},
               {"best", evaluated ? Json(state.best_metric) : Json(nullptr)},
               {"output", config.output}});
    return;
  }
  fmt::print("{} after step {}, loss {:.4f}", summary.end, state.step, summary.last_loss);
  if (state.best_step > 0) {
    fmt::print(", best {} {:.4f} at step {}", config.evaluation.metric, state.best_metric,
               state.best_step);
  }
  fmt::print("; checkpoints in {}\n", config.output);
}

// Names the ranks behind an error that a group reports by its own numbers.
absl::Status NameGroups(const absl::Status& status, const Ranks& ranks) {
  if (status.code() != absl::StatusCode::kUnavailable || ranks.environment.world_size == 1) {
    return status;
  }
  // By now both groups may have failed: it is the one that says the same.
  const absl::Status data = ranks.data->Check();
  const bool tensor = data.ok() || status.message().find(data.message()) == status.message().npos;
  return Annotate(status,
                  fmt::format("rank {}, {}", ranks.environment.rank, DescribeGroup(ranks, tensor)));
}

// Ends the groups of a rank that failed. Before the trainer ends: the model may have a sum under
// way in which another rank waits.
absl::Status Fail(const absl::Status& status, const Ranks& ranks) {
  absl::Status named = NameGroups(status, ranks);
  ranks.tensor->Abort(Message(named));
  ranks.data->Abort(Message(named));
  return named;
}

// `console` is null on a rank that does not write.
absl::StatusOr<RunSummary> RunLogged(Trainer& trainer, const TrainConfig& config,
                                     Console* console) {
  if (console == nullptr) return trainer.Run();
  ASSIGN_OR_RETURN(const auto log, RunLog::Create(config.output, config.log.tensorboard));
  console->set_log(log.get());
  const auto forget = absl::MakeCleanup([console] { console->set_log(nullptr); });
  return trainer.Run();
}

absl::StatusOr<RunSummary> RunRank(const TrainConfig& config, const Ranks& ranks) {
  const bool writes = ranks.environment.rank == 0;
  const int threads = config.compute.threads > 0
                          ? static_cast<int>(config.compute.threads)
                          : std::max(1, AvailableCpus() / ranks.environment.local_world_size);
  ThreadPool pool(threads);
  TrainerOptions options = {.config = config};
  options.tensor = ranks.tensor.get();
  options.data = ranks.data.get();
  options.device = ranks.environment.local_rank;
  options.stop_requested = [] { return stop_signals > 0; };
  Console console;
  if (writes) options.observer = &console;
  const auto trainer = Trainer::Create(options, pool);
  if (!trainer.ok()) return Fail(trainer.status(), ranks);
  auto summary = RunLogged(**trainer, config, writes ? &console : nullptr);
  if (!summary.ok()) return Fail(summary.status(), ranks);
  return summary;
}

absl::Status Train(const TrainFlags& flags) {
  ASSIGN_OR_RETURN(const TrainConfig config, LoadTrainConfig(flags.config, flags.overrides));
  ASSIGN_OR_RETURN(const RankEnvironment environment, ReadRankEnvironment(Environment));
  ASSIGN_OR_RETURN(const Ranks ranks,
                   JoinRanks(environment, static_cast<int>(config.parallel.tensor),
                             Describe(config), absl::Seconds(config.parallel.timeout)));
  CatchSignals();
  ASSIGN_OR_RETURN(const RunSummary summary, RunRank(config, ranks));
  if (environment.rank == 0) PrintSummary(flags, config, summary);
  return absl::OkStatus();
}

}  // namespace

void AddTrain(CLI::App& app, Runner& run) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* train = app.add_subcommand("train", "Fine-tune a model after a recipe");
  train->add_option("--config", flags->config, "The recipe, a YAML file")->required();
  train->add_option("--set", flags->overrides, "One value of the recipe: optimizer.lr=1e-4")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  train->add_flag("--json", flags->json, "The result as one JSON object");
  train->footer(
      "SIGTERM saves a checkpoint and exits with 0; the same command goes on from there.\n"
      "\n"
      "Examples:\n"
      "  hanlin train --config trainer/recipes/poetry.yaml --set output=/tmp/poet\n"
      "  hanlin launch --nproc-per-node 2 hanlin train --config recipe.yaml");
  train->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Train(*flags);
      return status.ok() ? kExitOk : ReportError("hanlin train", status);
    };
  });
}

}  // namespace hanlin::cli
