// See model_flags.h.
#include "cli/model/model_flags.h"

#include <CLI/CLI.hpp>

#include "cli/output/progress.h"
#include "common/flags/flags.h"
#include "common/io/data_dir.h"
#include "common/status/status.h"
#include "tokenizer_svc/core/loader.h"
#include "worker/engine/local.h"

namespace hanlin::cli {

void AddModelFlags(CLI::App& command, ModelFlags& flags) {
  command.add_option("--model", flags.model,
                     "Model folder (default: the model that ships with Hanlin)");
  command.add_flag("--random-weights", flags.random_weights,
                   "--model names a preset (base, large, 1.3B, …); its weights are random");
  command.add_option("--device", flags.device, "cpu, cuda, or null (ids by formula)")
      ->check(CLI::IsMember({"cpu", "cuda", "null"}))
      ->capture_default_str();
  command.add_option("--dtype", flags.dtype, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command.add_flag("--batch-invariant", flags.batch_invariant,
                   "On a GPU: ids do not depend on what else runs, at some cost in speed");
  command.add_option("--tp", flags.tp, "Processes that share the model")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command.add_option("--threads", flags.threads, "Threads of a rank (0: the cores, divided)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command.add_option("--kv-memory", flags.kv_memory,
                     "KV cache, e.g. 2GiB (default: from the memory that is there)");
}

absl::StatusOr<std::unique_ptr<LocalModel>> LoadModel(const ModelFlags& flags, bool scoring) {
  LocalModel::Options options{.device = flags.device,
                              .dtype = flags.dtype,
                              .scoring = scoring,
                              .tp = flags.tp,
                              .batch_invariant = flags.batch_invariant,
                              .threads = flags.threads};
  if (flags.random_weights) {
    if (flags.model.empty())
      return InvalidArgument("--random-weights needs --model with the name of a preset");
    options.random_weights = flags.model;
  } else if (flags.model.empty()) {
    ASSIGN_OR_RETURN(options.directory, DefaultModelDirectory());
  } else {
    options.directory = flags.model;
  }
  if (!flags.kv_memory.empty()) {
    ASSIGN_OR_RETURN(options.kv_memory, ParseSize("--kv-memory", flags.kv_memory));
  }
  Progress progress("loading weights");
  options.progress = [&progress](double fraction) { progress.Update(fraction); };
  return LocalModel::Create(std::move(options));
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const std::string& model) {
  std::string directory = model;
  if (directory.empty()) {
    ASSIGN_OR_RETURN(directory, DefaultModelDirectory());
  }
  return LoadTokenizer(directory);
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const ModelFlags& flags) {
  return LoadModelTokenizer(flags.random_weights ? std::string() : flags.model);
}

}  // namespace hanlin::cli
