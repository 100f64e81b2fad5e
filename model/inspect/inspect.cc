// See inspect.h.
#include "model/inspect/inspect.h"

#include <fmt/ranges.h>

#include <set>

#include "common/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/shards.h"
#include "model/checkpoint/weight_map.h"
#include "model/forward/model.h"
#include "model/weights/weights.h"

namespace hanlin {
namespace {

constexpr int kMaxTpShown = 8;

std::string_view TypeName(ComputeType type) {
  return type == ComputeType::kFloat32 ? "float32" : "bfloat16";
}

MemoryNeed NeedOf(const ModelConfig& config, int tp_size, ComputeType type) {
  const uint64_t block_bytes = GptModel::KvBlockBytes(config, type, tp_size);
  const auto block_tokens = static_cast<uint64_t>(GptModel::block_tokens());
  const uint64_t blocks =
      (static_cast<uint64_t>(config.max_positions) + block_tokens - 1) / block_tokens;
  return {.tp_size = tp_size,
          .type = type,
          .weight_bytes = WeightBytes(config, type, tp_size),
          .kv_bytes_per_token = block_bytes / block_tokens,
          .kv_bytes_per_context = blocks * block_bytes};
}

std::string Mebibytes(uint64_t bytes) { return fmt::format("{:.1f} MiB", bytes / 0x1p20); }

std::string Relative(const std::string& path, const std::string& directory) {
  return path.substr(path.starts_with(directory + "/") ? directory.size() + 1 : 0);
}

// Files and tensors of the folder, in order.
void Describe(const std::string& directory, const std::vector<StoredTensors>& shards,
              ModelInspection* inspection) {
  std::map<std::string, int64_t> files;
  std::set<std::string> weight_types;
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    for (const auto& [name, tensor] : shards[shard]) {
      const std::string file = Relative(tensor.file->path(), directory);
      files[file] = static_cast<int64_t>(tensor.file->size());
      const std::string dtype(ToString(tensor.dtype));
      if (!IsIgnoredBuffer(inspection->config.layout, name)) weight_types.insert(dtype);
      inspection->tensors.push_back({name, static_cast<int>(shard), file, dtype, tensor.shape});
    }
  }
  for (const auto& [path, bytes] : files) inspection->files.push_back({path, bytes});
  inspection->num_shards = static_cast<int>(shards.size());
  inspection->dtype = weight_types.size() == 1 ? *weight_types.begin() : "mixed";
}

nlohmann::json ConfigJson(const ModelConfig& config) {
  return {{"name", config.name},
          {"layout", std::string(ToString(config.layout))},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"num_layers", config.num_layers},
          {"num_heads", config.num_heads},
          {"head_dim", config.head_dim},
          {"ffn_size", config.ffn_size},
          {"max_positions", config.max_positions},
          {"layernorm_epsilon", config.layernorm_epsilon},
          {"gelu", std::string(ToString(config.gelu))},
          {"end_token_ids", config.end_token_ids},
          {"num_parameters", config.num_parameters()},
          {"allowed_tp", AllowedTpSizes(config)}};
}

template <typename T>
std::string OrUnset(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "unset";
}

std::string ConfigText(const ModelConfig& config) {
  const GenerationDefaults& generation = config.generation;
  return fmt::format(
      "{}: {} parameters, {} layout\n"
      "  layers {}, hidden {}, heads {} of {}, MLP {}, vocabulary {}, context {}\n"
      "  GELU {}, LayerNorm epsilon {}, end tokens [{}]\n"
      "  defaults: new tokens {}, temperature {}, top_k {}, top_p {}\n"
      "  tensor parallel degrees: {}\n",
      config.name, config.num_parameters(), ToString(config.layout), config.num_layers,
      config.hidden_size, config.num_heads, config.head_dim, config.ffn_size, config.vocab_size,
      config.max_positions, ToString(config.gelu), config.layernorm_epsilon,
      fmt::join(config.end_token_ids, ", "), OrUnset(generation.tokens_to_generate),
      OrUnset(generation.temperature), OrUnset(generation.top_k), OrUnset(generation.top_p),
      fmt::join(AllowedTpSizes(config), ", "));
}

}  // namespace

ModelInspection InspectConfig(const ModelConfig& config) {
  ModelInspection inspection;
  inspection.config = config;
  for (const int tp_size : AllowedTpSizes(config, kMaxTpShown)) {
    for (const ComputeType type : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
      inspection.memory.push_back(NeedOf(config, tp_size, type));
    }
  }
  return inspection;
}

absl::StatusOr<ModelInspection> InspectFolder(const std::string& directory) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(directory));
  RETURN_IF_ERROR(Checkpoint::Open(directory, config).status());
  ASSIGN_OR_RETURN(const std::vector<StoredTensors> shards, OpenShards(directory, config.layout));
  ModelInspection inspection = InspectConfig(config);
  Describe(directory, shards, &inspection);
  return inspection;
}

nlohmann::json ToJson(const ModelInspection& inspection) {
  nlohmann::json json = {{"config", ConfigJson(inspection.config)},
                         {"shards", inspection.num_shards},
                         {"dtype", inspection.dtype},
                         {"files", nlohmann::json::array()},
                         {"tensors", nlohmann::json::array()},
                         {"memory", nlohmann::json::array()}};
  int64_t total = 0;
  for (const FileInfo& file : inspection.files) {
    json["files"].push_back({{"path", file.path}, {"bytes", file.bytes}});
    total += file.bytes;
  }
  json["bytes"] = total;
  for (const TensorInfo& tensor : inspection.tensors) {
    json["tensors"].push_back({{"name", tensor.name},
                               {"shard", tensor.shard},
                               {"file", tensor.file},
                               {"dtype", tensor.dtype},
                               {"shape", tensor.shape}});
  }
  for (const MemoryNeed& need : inspection.memory) {
    json["memory"].push_back({{"tp", need.tp_size},
                              {"dtype", std::string(TypeName(need.type))},
                              {"weight_bytes", need.weight_bytes},
                              {"kv_bytes_per_token", need.kv_bytes_per_token},
                              {"kv_bytes_per_context", need.kv_bytes_per_context}});
  }
  return json;
}

std::string ToText(const ModelInspection& inspection, bool all_tensors) {
  std::string text = ConfigText(inspection.config);
  if (!inspection.files.empty()) {
    text += fmt::format("on disk: {} tensors in {} file(s), {} shard(s), {}\n",
                        inspection.tensors.size(), inspection.files.size(), inspection.num_shards,
                        inspection.dtype);
  }
  for (const FileInfo& file : inspection.files) {
    text +=
        fmt::format("  {:<44} {:>14}\n", file.path, Mebibytes(static_cast<uint64_t>(file.bytes)));
  }
  if (all_tensors) {
    text += "tensors:\n";
    for (const TensorInfo& tensor : inspection.tensors) {
      text += fmt::format("  {:<72} {:<9} [{}]{}\n", tensor.name, tensor.dtype,
                          fmt::join(tensor.shape, ", "),
                          inspection.num_shards > 1 ? fmt::format(" shard {}", tensor.shard) : "");
    }
  }
  text += "in memory, each rank:\n";
  for (const MemoryNeed& need : inspection.memory) {
    text += fmt::format("  tp {} {:<8}  weights {:>12}, KV cache {} bytes a token, {} a context\n",
                        need.tp_size, TypeName(need.type), Mebibytes(need.weight_bytes),
                        need.kv_bytes_per_token, Mebibytes(need.kv_bytes_per_context));
  }
  return text;
}

}  // namespace hanlin
