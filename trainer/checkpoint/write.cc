// Writing of checkpoint.h: the model folder, the run's state, links and retention.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/weight_map.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/safetensors_writer.h"

namespace hanlin {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json", "tokenizer_config.json",  "vocab.txt", "tokenizer.model", "merges.txt",
    "vocab.json",     "special_tokens_map.json"};

std::string StepName(int64_t step) { return fmt::format("step-{:08}", step); }

absl::Status FileError(std::string_view what, const std::error_code& error) {
  const auto message = fmt::format("{}: {}", what, error.message());
  return error == std::errc::no_space_on_device ? absl::ResourceExhaustedError(message)
                                                : absl::UnknownError(message);
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::UnknownError("cannot open " + path);
  const int result = fsync(fd);
  close(fd);
  return result == 0 ? absl::OkStatus() : absl::UnknownError("cannot sync " + path);
}

std::string ConfigJson(const ModelConfig& config, bool bfloat16) {
  Json json = {{"model_type", "gpt2"},
               {"architectures", {"GPT2LMHeadModel"}},
               {"dtype", bfloat16 ? "bfloat16" : "float32"},
               {"vocab_size", config.vocab_size},
               {"n_positions", config.max_positions},
               {"n_embd", config.hidden_size},
               {"n_layer", config.num_layers},
               {"n_head", config.num_heads},
               {"n_inner", config.ffn_size},
               {"activation_function", config.gelu == GeluKind::kErf ? "gelu" : "gelu_new"},
               // As a decimal number would have it: 1e-05, not the double next to the float.
               {"layer_norm_epsilon",
                std::strtod(fmt::format("{}", config.layernorm_epsilon).c_str(), nullptr)},
               {"tie_word_embeddings", true},
               {"eos_token_id", config.end_token_ids}};
  if (config.end_token_ids.empty()) json["eos_token_id"] = nullptr;
  if (config.end_token_ids.size() == 1) json["eos_token_id"] = config.end_token_ids[0];
  const GenerationDefaults& generation = config.generation;
  const auto optional = [&json](const char* key, const auto& value) {
    if (value.has_value()) json[key] = *value;
  };
  optional("tokens_to_generate", generation.tokens_to_generate);
  optional("top_k", generation.top_k);
  optional("top_p", generation.top_p);
  optional("temperature", generation.temperature);
  return json.dump(1) + "\n";
}

std::string StateJson(const RunState& state) {
  Json json = {{"version", 1},
               {"step", state.step},
               {"updates", state.updates},
               {"epoch", state.epoch},
               {"step_in_epoch", state.step_in_epoch},
               {"tokens", state.tokens},
               {"best_metric", state.best_metric},  // infinity is written as null
               {"best_step", state.best_step},
               {"evaluations_since_best", state.evaluations_since_best},
               {"recipe", state.recipe}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::vector<float> Transposed(const std::vector<float>& values, const TensorShape& shape) {
  std::vector<float> result(values.size());
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.cols; ++j) {
      result[j * shape.rows + i] = values[i * shape.cols + j];
    }
  }
  return result;
}

absl::Status WriteWeights(const std::string& path, const CheckpointOptions& options,
                          const WholeTensors& parameters) {
  constexpr ModelLayout kLayout = ModelLayout::kHuggingFaceGpt2;
  ModelConfig config = options.config;
  config.layout = kLayout;
  const std::vector<TensorId> ids = AllTensors(config);
  std::vector<SafetensorsWriter::Tensor> tensors;
  tensors.reserve(ids.size());
  for (const TensorId id : ids) {
    tensors.push_back({"transformer." + StoredName(kLayout, id), StoredShape(config, id.role, 1),
                       options.bfloat16});
  }
  ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, tensors));
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool transposed = IsTransposed(kLayout, ids[i].role);
    RETURN_IF_ERROR(
        writer->Append(transposed ? Transposed(parameters[i], LocalShape(config, ids[i].role, 1))
                                  : parameters[i]));
  }
  return writer->Finish();
}

absl::Status WriteOptimizer(const std::string& path, const CheckpointOptions& options,
                            const Snapshot& snapshot) {
  std::vector<std::pair<char, const WholeTensors*>> groups = {{'m', &snapshot.moment1},
                                                              {'v', &snapshot.moment2}};
  if (options.bfloat16) groups.push_back({'p', &snapshot.parameters});
  std::vector<SafetensorsWriter::Tensor> tensors;
  const std::vector<TensorId> ids = AllTensors(options.config);
  for (const auto& [letter, group] : groups) {
    for (const TensorId id : ids) {
      const TensorShape shape = LocalShape(options.config, id.role, 1);
      tensors.push_back(
          {fmt::format("{}.{}", letter, StoredName(ModelLayout::kHuggingFaceGpt2, id)),
           {shape.rows, shape.cols}});
    }
  }
  ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, tensors));
  for (const auto& [letter, group] : groups) {
    for (const std::vector<float>& values : *group) RETURN_IF_ERROR(writer->Append(values));
  }
  return writer->Finish();
}

absl::Status CopyTokenizer(const CheckpointOptions& options, const std::string& to) {
  if (options.tokenizer_directory.empty()) return absl::OkStatus();
  for (const char* name : kTokenizerFiles) {
    const std::string from = options.tokenizer_directory + "/" + name;
    if (!FileExists(from)) continue;
    ASSIGN_OR_RETURN(const std::string contents, ReadFile(from));
    RETURN_IF_ERROR(WriteFileAtomically(to + "/" + name, contents));
  }
  // A ModelScope A folder says by its configuration.json that jieba cuts first; the Hugging Face
  // place for it is the class.
  const bool jieba = options.config.layout == ModelLayout::kModelScopeA;
  if (!jieba || FileExists(to + "/tokenizer_config.json")) return absl::OkStatus();
  return WriteFileAtomically(to + "/tokenizer_config.json",
                             "{\"tokenizer_class\": \"JiebaBPETokenizer\"}\n");
}

absl::Status WriteFolder(const CheckpointOptions& options, const Snapshot& snapshot,
                         const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder + "/trainer", error);
  if (error) return FileError("cannot create " + folder, error);
  RETURN_IF_ERROR(
      WriteFileAtomically(folder + "/config.json", ConfigJson(options.config, options.bfloat16)));
  RETURN_IF_ERROR(CopyTokenizer(options, folder));
  RETURN_IF_ERROR(WriteWeights(folder + std::string(kWeightsFile), options, snapshot.parameters));
  RETURN_IF_ERROR(WriteOptimizer(folder + std::string(kOptimizerFile), options, snapshot));
  RETURN_IF_ERROR(WriteFileAtomically(folder + std::string(kStateFile), StateJson(snapshot.state)));
  RETURN_IF_ERROR(SyncDirectory(folder + "/trainer"));
  return SyncDirectory(folder);
}

// Points OUTPUT/`name` at `target`, by renaming a new link over the old one.
absl::Status Link(const std::string& output, const std::string& name, const std::string& target) {
  const std::string temporary = fmt::format("{}/.{}.tmp", output, name);
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  if (!error) fs::rename(temporary, output + "/" + name, error);
  return error ? FileError(fmt::format("cannot link {}/{}", output, name), error)
               : absl::OkStatus();
}

std::vector<std::string> StepFolders(const std::string& output) {
  std::vector<std::string> steps;
  const auto names = ListDirectory(output);
  if (!names.ok()) return steps;
  for (const std::string& name : *names) {
    if (name.starts_with("step-")) steps.push_back(name);
  }
  return steps;  // sorted: the numbers have leading zeros
}

void RemoveOld(const CheckpointOptions& options) {
  std::error_code ignored;
  const std::string best = fs::read_symlink(options.output + "/best", ignored).string();
  std::vector<std::string> steps = StepFolders(options.output);
  std::erase(steps, best);
  for (size_t i = 0; i + static_cast<size_t>(options.keep) < steps.size(); ++i) {
    // Out of sight first: a removal that is cut short must not leave half a checkpoint.
    const std::string doomed = fmt::format("{}/.{}.old", options.output, steps[i]);
    fs::rename(options.output + "/" + steps[i], doomed, ignored);
    fs::remove_all(doomed, ignored);
  }
}

}  // namespace

absl::Status WriteCheckpoint(const CheckpointOptions& options, const Snapshot& snapshot) {
  const std::string name = StepName(snapshot.state.step);
  const std::string temporary = fmt::format("{}/.{}.tmp", options.output, name);
  const std::string folder = options.output + "/" + name;
  std::error_code error;
  fs::remove_all(temporary, error);
  if (const absl::Status status = WriteFolder(options, snapshot, temporary); !status.ok()) {
    fs::remove_all(temporary, error);
    return Annotate(status, "checkpoint " + name);
  }
  if (fs::exists(folder, error)) {  // the same step again, after a resume
    const std::string doomed = fmt::format("{}/.{}.old", options.output, name);
    fs::remove_all(doomed, error);
    fs::rename(folder, doomed, error);
    fs::rename(temporary, folder, error);
    if (error) return FileError("cannot rename " + temporary, error);
    fs::remove_all(doomed, error);
  } else {
    fs::rename(temporary, folder, error);
    if (error) return FileError("cannot rename " + temporary, error);
  }
  RETURN_IF_ERROR(SyncDirectory(options.output));
  RETURN_IF_ERROR(Link(options.output, "latest", name));
  if (snapshot.best) RETURN_IF_ERROR(Link(options.output, "best", name));
  RemoveOld(options);
  return absl::OkStatus();
}

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

absl::Status CheckpointWriter::Wait() {
  if (thread_.joinable()) thread_.join();
  return std::exchange(status_, absl::OkStatus());
}

absl::Status CheckpointWriter::Start(Snapshot snapshot) {
  RETURN_IF_ERROR(Wait());
  thread_ = std::thread(
      [this, snapshot = std::move(snapshot)] { status_ = WriteCheckpoint(options_, snapshot); });
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> NewestCheckpoint(const std::string& output) {
  const std::vector<std::string> steps = StepFolders(output);
  if (steps.empty()) return std::nullopt;
  return output + "/" + steps.back();
}

}  // namespace hanlin
