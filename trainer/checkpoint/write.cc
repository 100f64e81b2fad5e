// Writing of checkpoint.h: the model folder, the run's state, links and retention.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/weight_map.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/model_folder.h"
#include "trainer/checkpoint/safetensors_writer.h"

namespace hanlin {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string StepName(int64_t step) { return fmt::format("step-{:08}", step); }

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

absl::Status WriteFolder(const CheckpointOptions& options, const Snapshot& snapshot,
                         const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder + "/trainer", error);
  if (error) return FileError("cannot create " + folder, error);
  RETURN_IF_ERROR(
      WriteModelFolder(folder, {options.config, options.tokenizer_directory, options.bfloat16},
                       [&](size_t i) { return std::span<const float>(snapshot.parameters[i]); }));
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
