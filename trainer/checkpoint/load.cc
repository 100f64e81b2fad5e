// Reading of checkpoint.h. The files may be damaged or of another model: everything is checked.
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/weight_map.h"
#include "model/config/json.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/files.h"

namespace hanlin {
namespace {

absl::Status CheckArchitecture(const ModelConfig& stored, const ModelConfig& wanted,
                               const std::string& directory) {
  const std::tuple<const char*, int64_t, int64_t> sizes[] = {
      {"vocabulary", stored.vocab_size, wanted.vocab_size},
      {"hidden size", stored.hidden_size, wanted.hidden_size},
      {"layers", stored.num_layers, wanted.num_layers},
      {"heads", stored.num_heads, wanted.num_heads},
      {"MLP width", stored.ffn_size, wanted.ffn_size},
      {"positions", stored.max_positions, wanted.max_positions},
      {"GELU kind", static_cast<int>(stored.gelu), static_cast<int>(wanted.gelu)}};
  for (const auto& [name, seen, want] : sizes) {
    if (seen != want) {
      return FailedPrecondition("{} is a checkpoint of another architecture: {} {}, want {}",
                                directory, name, seen, want);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RunState> ReadState(const std::string& path) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  RunState state;
  const std::pair<const char*, int64_t*> integers[] = {
      {"step", &state.step},
      {"updates", &state.updates},
      {"epoch", &state.epoch},
      {"step_in_epoch", &state.step_in_epoch},
      {"tokens", &state.tokens},
      {"best_step", &state.best_step},
      {"evaluations_since_best", &state.evaluations_since_best}};
  if (json.value("version", nlohmann::json()) != 1) {
    return DataLoss("{}: is not version 1 of a run's state", path);
  }
  for (const auto& [key, field] : integers) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_unsigned() ||
        found->get<uint64_t>() > std::numeric_limits<int64_t>::max()) {
      return DataLoss("{}: {} is not a count", path, key);
    }
    *field = found->get<int64_t>();
  }
  const auto metric = json.find("best_metric");
  if (metric != json.end() && metric->is_number()) state.best_metric = metric->get<double>();
  const auto recipe = json.find("recipe");
  if (recipe != json.end() && recipe->is_string()) state.recipe = recipe->get<std::string>();
  return state;
}

absl::Status LoadArray(const StoredTensors& tensors, char letter, TrainState state,
                       const std::string& path, TrainModel& model) {
  for (const ParameterSlot& slot : model.layout().slots()) {
    const std::string name =
        fmt::format("{}.{}", letter, StoredName(ModelLayout::kHuggingFaceGpt2, slot.id));
    const auto found = tensors.find(name);
    if (found == tensors.end()) return DataLoss("{}: there is no tensor {}", path, name);
    RETURN_IF_ERROR(
        ScatterTensor(found->second, fmt::format("{}: {}", path, name), slot, state, model));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunState> ReadRunState(const std::string& directory, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const ModelConfig stored, LoadModelConfig(directory));
  RETURN_IF_ERROR(CheckArchitecture(stored, config, directory));
  return ReadState(directory + std::string(kStateFile));
}

absl::StatusOr<RunState> LoadCheckpoint(const std::string& directory, TrainModel& model) {
  ASSIGN_OR_RETURN(RunState state, ReadRunState(directory, model.options().config));
  const std::string path = directory + std::string(kOptimizerFile);
  ASSIGN_OR_RETURN(const StoredTensors tensors, ReadSafetensors(path));
  RETURN_IF_ERROR(LoadArray(tensors, 'm', TrainState::kMoment1, path, model));
  RETURN_IF_ERROR(LoadArray(tensors, 'v', TrainState::kMoment2, path, model));
  if (tensors.contains("p.wte.weight")) {
    RETURN_IF_ERROR(LoadArray(tensors, 'p', TrainState::kParameters, path, model));
  } else {
    ASSIGN_OR_RETURN(const ModelConfig stored, LoadModelConfig(directory));
    ASSIGN_OR_RETURN(const auto weights, Checkpoint::Open(directory, stored));
    RETURN_IF_ERROR(LoadParameters(*weights, model));
  }
  return state;
}

}  // namespace hanlin
