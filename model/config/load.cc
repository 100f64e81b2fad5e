// Reads config.json (and configuration.json) of a model folder; see config.h. Two dialects: Hugging
// Face GPT2Config and ModelScope GPT3Config. An option that would change the mathematics and is not
// implemented is refused by name; one that only chooses a kernel or a training detail is ignored.
#include <filesystem>
#include <initializer_list>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/config/config.h"
#include "model/config/json.h"

namespace hanlin {
namespace {

// Far beyond any model of the family; keeps every product of sizes inside int64.
constexpr int32_t kMaxSize = 1 << 24;
constexpr int32_t kMaxLayers = 4096;

std::string FolderName(const std::string& directory) {
  auto path = std::filesystem::path(directory).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return path.filename().string();
}

absl::Status RefuseOption(std::string_view key, std::string_view seen, std::string_view wanted) {
  return FailedPrecondition("config.json: {} is {}, which Hanlin does not implement, want {}", key,
                            seen, wanted);
}

// Every key of `keys` must be absent or `wanted`.
absl::Status WantBool(const JsonFields& fields, std::initializer_list<const char*> keys,
                      bool wanted) {
  for (const char* key : keys) {
    ASSIGN_OR_RETURN(const auto value, fields.Bool(key));
    if (value.value_or(wanted) != wanted) {
      return RefuseOption(key, wanted ? "false" : "true", wanted ? "true" : "false");
    }
  }
  return absl::OkStatus();
}

// An id or a list of ids; ids outside the vocabulary can never be produced and are left out.
absl::Status ReadEndTokens(const JsonFields& fields, const char* key, int32_t absent,
                           ModelConfig* config) {
  const nlohmann::json* value = fields.Find(key);
  const nlohmann::json list = value == nullptr    ? nlohmann::json::array({absent})
                              : value->is_array() ? *value
                                                  : nlohmann::json::array({*value});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer()) {
      return InvalidArgument("config.json: {} holds a {}, want a token id or a list of ids", key,
                             id.type_name());
    }
    const auto number = id.get<int64_t>();
    if (number >= 0 && number < config->vocab_size) {
      config->end_token_ids.push_back(static_cast<int32_t>(number));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadGenerationDefaults(const JsonFields& fields, GenerationDefaults* defaults) {
  ASSIGN_OR_RETURN(defaults->tokens_to_generate, fields.Int("tokens_to_generate", 1, kMaxSize));
  ASSIGN_OR_RETURN(defaults->top_k, fields.Int("top_k", 0, kMaxSize));
  ASSIGN_OR_RETURN(const auto top_p, fields.Number("top_p", 0, 1));
  // ModelScope writes 0 for "no filter".
  if (top_p) defaults->top_p = *top_p == 0 ? 1.0f : static_cast<float>(*top_p);
  ASSIGN_OR_RETURN(const auto temperature, fields.Number("temperature", 0, 1e6));
  if (temperature) defaults->temperature = static_cast<float>(*temperature);
  return absl::OkStatus();
}

absl::Status SetHeads(std::string_view heads_key, std::string_view size_key, ModelConfig* config) {
  if (config->hidden_size % config->num_heads != 0) {
    return InvalidArgument("config.json: {} {} is no multiple of {} {}", size_key,
                           config->hidden_size, heads_key, config->num_heads);
  }
  config->head_dim = config->hidden_size / config->num_heads;
  return absl::OkStatus();
}

absl::Status ReadHuggingFace(const JsonFields& fields, ModelConfig* config) {
  config->layout = ModelLayout::kHuggingFaceGpt2;
  RETURN_IF_ERROR(
      WantBool(fields, {"add_cross_attention", "scale_attn_by_inverse_layer_idx"}, false));
  RETURN_IF_ERROR(WantBool(fields, {"scale_attn_weights", "tie_word_embeddings"}, true));
  if (fields.Has("quantization_config"))
    return RefuseOption("quantization_config", "present", "plain weights");
  ASSIGN_OR_RETURN(config->vocab_size, fields.RequiredInt("vocab_size", 1, kMaxSize));
  ASSIGN_OR_RETURN(config->hidden_size, fields.RequiredInt("n_embd", 1, kMaxSize));
  ASSIGN_OR_RETURN(config->num_layers, fields.RequiredInt("n_layer", 1, kMaxLayers));
  ASSIGN_OR_RETURN(config->num_heads, fields.RequiredInt("n_head", 1, kMaxSize));
  ASSIGN_OR_RETURN(config->max_positions, fields.RequiredInt("n_positions", 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads("n_head", "n_embd", config));
  ASSIGN_OR_RETURN(const auto inner, fields.Int("n_inner", 1, kMaxSize));
  config->ffn_size = inner.value_or(4 * config->hidden_size);
  ASSIGN_OR_RETURN(const auto epsilon, fields.Number("layer_norm_epsilon", 0, 1));
  config->layernorm_epsilon = static_cast<float>(epsilon.value_or(1e-5));
  ASSIGN_OR_RETURN(const auto activation, fields.String("activation_function"));
  const std::string gelu = activation.value_or("gelu_new");
  if (gelu == "gelu" || gelu == "gelu_python") {
    config->gelu = GeluKind::kErf;
  } else if (gelu == "gelu_new" || gelu == "gelu_fast" || gelu == "gelu_pytorch_tanh") {
    config->gelu = GeluKind::kTanh;
  } else {
    return RefuseOption("activation_function", gelu,
                        "gelu, gelu_new, gelu_fast or gelu_pytorch_tanh");
  }
  // 50256 is the default of GPT2Config.
  return ReadEndTokens(fields, "eos_token_id", 50256, config);
}

absl::Status ReadModelScope(const JsonFields& fields, ModelConfig* config) {
  RETURN_IF_ERROR(WantBool(fields, {"apply_residual_connection_post_layernorm"}, false));
  ASSIGN_OR_RETURN(config->vocab_size, fields.RequiredInt("vocab_size", 1, kMaxSize));
  ASSIGN_OR_RETURN(config->hidden_size, fields.RequiredInt("hidden_size", 1, kMaxSize));
  ASSIGN_OR_RETURN(config->num_layers, fields.RequiredInt("num_hidden_layers", 1, kMaxLayers));
  ASSIGN_OR_RETURN(config->num_heads, fields.RequiredInt("num_attention_heads", 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads("num_attention_heads", "hidden_size", config));
  ASSIGN_OR_RETURN(const auto channels, fields.Int("kv_channels", 1, kMaxSize));
  if (channels && *channels != config->head_dim) {
    return RefuseOption("kv_channels", std::to_string(*channels), std::to_string(config->head_dim));
  }
  ASSIGN_OR_RETURN(const auto positions, fields.Int("max_position_embeddings", 1, kMaxSize));
  config->max_positions = positions.value_or(2048);
  ASSIGN_OR_RETURN(const auto epsilon, fields.Number("layernorm_epsilon", 0, 1));
  config->layernorm_epsilon = static_cast<float>(epsilon.value_or(1e-12));
  // intermediate_size, hidden_act and type_vocab_size are written by upstream and read by nothing.
  config->ffn_size = 4 * config->hidden_size;
  config->gelu = GeluKind::kErf;
  if (config->layout == ModelLayout::kModelScopeA) {
    ASSIGN_OR_RETURN(const auto ffn, fields.Int("ffn_hidden_size", 1, kMaxSize));
    config->ffn_size = ffn.value_or(config->ffn_size);
    ASSIGN_OR_RETURN(const auto fused, fields.Bool("bias_gelu_fusion"));
    if (fused.value_or(true)) config->gelu = GeluKind::kTanh;
  }
  return ReadEndTokens(fields, "eod_id", 1, config);
}

absl::StatusOr<ModelLayout> FindLayout(const std::string& directory, const JsonFields& fields) {
  ASSIGN_OR_RETURN(const auto type, fields.String("model_type"));
  if (type == "gpt2") return ModelLayout::kHuggingFaceGpt2;
  if (type && *type != "gpt3") return RefuseOption("model_type", *type, "gpt2, gpt3 or none");
  if (!fields.Has("hidden_size") || !fields.Has("num_hidden_layers")) {
    return InvalidArgument(
        "{} is no model folder: config.json has neither model_type gpt2 (Hugging Face) nor "
        "hidden_size and "
        "num_hidden_layers (ModelScope)",
        directory);
  }
  const std::string path = directory + "/configuration.json";
  if (!FileExists(path)) return ModelLayout::kModelScopeB;
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  return json.contains("megatron") ? ModelLayout::kModelScopeA : ModelLayout::kModelScopeB;
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory) {
  const std::string path = directory + "/config.json";
  if (!FileExists(path)) {
    return NotFound(
        "{} is no model folder: looked for config.json with model_type gpt2 (Hugging Face), or "
        "config.json and "
        "configuration.json (ModelScope)",
        directory);
  }
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  const JsonFields fields(json, "config.json");
  ModelConfig config;
  config.name = FolderName(directory);
  ASSIGN_OR_RETURN(config.layout, FindLayout(directory, fields));
  RETURN_IF_ERROR(config.layout == ModelLayout::kHuggingFaceGpt2 ? ReadHuggingFace(fields, &config)
                                                                 : ReadModelScope(fields, &config));
  RETURN_IF_ERROR(ReadGenerationDefaults(fields, &config.generation));
  return config;
}

}  // namespace hanlin
