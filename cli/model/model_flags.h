// The options that name a model and say how to run it, the same for every command that runs one in
// the process. Pure but for a look at the file system. Thread-safe: no state.
#ifndef HANLIN_CLI_MODEL_MODEL_FLAGS_H_
#define HANLIN_CLI_MODEL_MODEL_FLAGS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace CLI {
class App;
}

namespace hanlin {
class LocalModel;
class Tokenizer;
}  // namespace hanlin

namespace hanlin::cli {

struct ModelFlags {
  std::string
      model;  // folder, or the name of a preset with random_weights; empty = the default model
  bool random_weights = false;
  std::string device = "cpu";
  std::string dtype = "auto";
  int tp = 1;
  bool batch_invariant = false;
  int threads = 0;
  std::string kv_memory;
};

// --model, --random-weights, --device, --dtype, --batch-invariant, --tp, --threads, --kv-memory.
void AddModelFlags(CLI::App& command, ModelFlags& flags);

// Loads the model, with progress on stderr where it takes long. `scoring`: dtype auto means fp32.
absl::StatusOr<std::unique_ptr<LocalModel>> LoadModel(const ModelFlags& flags, bool scoring);

// Loads the tokenizer of the folder `model`; of the default model when `model` is empty.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const std::string& model);

// The tokenizer that goes with `flags`; that of the default model for a preset, which has none of
// its own.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadModelTokenizer(const ModelFlags& flags);

}  // namespace hanlin::cli

#endif  // HANLIN_CLI_MODEL_MODEL_FLAGS_H_
