// See weight_map.h.
#include "model/checkpoint/weight_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace hanlin {
namespace {

constexpr int kRolesPerLayer = 12;

// What distinguishes the 16 roles; in the order of TensorRole. `{}` is the layer; a name without it
// is global.
struct Role {
  std::string_view readable, hugging_face, megatron;
  TensorSplit split;
};
constexpr std::array<Role, 16> kRoles = {{
    {"word_embedding", "wte.weight", "word_embeddings.weight", TensorSplit::kRows},
    {"position_embedding", "wpe.weight", "position_embeddings.weight", TensorSplit::kNone},
    {"ln1_weight", "ln_1.weight", "input_layernorm.weight", TensorSplit::kNone},
    {"ln1_bias", "ln_1.bias", "input_layernorm.bias", TensorSplit::kNone},
    {"qkv_weight", "attn.c_attn.weight", "attention.query_key_value.weight", TensorSplit::kQkvRows},
    {"qkv_bias", "attn.c_attn.bias", "attention.query_key_value.bias", TensorSplit::kQkvRows},
    {"attention_output_weight", "attn.c_proj.weight", "attention.dense.weight",
     TensorSplit::kColumns},
    {"attention_output_bias", "attn.c_proj.bias", "attention.dense.bias", TensorSplit::kNone},
    {"ln2_weight", "ln_2.weight", "post_attention_layernorm.weight", TensorSplit::kNone},
    {"ln2_bias", "ln_2.bias", "post_attention_layernorm.bias", TensorSplit::kNone},
    {"mlp_up_weight", "mlp.c_fc.weight", "mlp.dense_h_to_4h.weight", TensorSplit::kRows},
    {"mlp_up_bias", "mlp.c_fc.bias", "mlp.dense_h_to_4h.bias", TensorSplit::kRows},
    {"mlp_down_weight", "mlp.c_proj.weight", "mlp.dense_4h_to_h.weight", TensorSplit::kColumns},
    {"mlp_down_bias", "mlp.c_proj.bias", "mlp.dense_4h_to_h.bias", TensorSplit::kNone},
    {"final_ln_weight", "ln_f.weight", "final_layernorm.weight", TensorSplit::kNone},
    {"final_ln_bias", "ln_f.bias", "final_layernorm.bias", TensorSplit::kNone},
}};

const Role& Of(TensorRole role) { return kRoles[static_cast<size_t>(role)]; }

bool IsEmbedding(TensorRole role) {
  return role == TensorRole::kWordEmbedding || role == TensorRole::kPositionEmbedding;
}
bool IsFinal(TensorRole role) {
  return role == TensorRole::kFinalLnWeight || role == TensorRole::kFinalLnBias;
}
bool IsLinearWeight(TensorRole role) {
  return role == TensorRole::kQkvWeight || role == TensorRole::kAttnOutWeight ||
         role == TensorRole::kMlpUpWeight || role == TensorRole::kMlpDownWeight;
}

TensorShape FullShape(const ModelConfig& config, TensorRole role) {
  const int64_t h = config.hidden_size, f = config.ffn_size;
  switch (role) {
    case TensorRole::kWordEmbedding:
      return {config.vocab_size, h};
    case TensorRole::kPositionEmbedding:
      return {config.max_positions, h};
    case TensorRole::kQkvWeight:
      return {3 * h, h};
    case TensorRole::kQkvBias:
      return {3 * h, 1};
    case TensorRole::kAttnOutWeight:
      return {h, h};
    case TensorRole::kMlpUpWeight:
      return {f, h};
    case TensorRole::kMlpUpBias:
      return {f, 1};
    case TensorRole::kMlpDownWeight:
      return {h, f};
    default:
      return {h, 1};
  }
}

}  // namespace

std::string ToString(TensorId id) {
  const std::string name(Of(id.role).readable);
  return IsEmbedding(id.role) || IsFinal(id.role) ? name
                                                  : fmt::format("{} of layer {}", name, id.layer);
}

std::vector<TensorId> AllTensors(const ModelConfig& config) {
  std::vector<TensorId> ids = {{TensorRole::kWordEmbedding}, {TensorRole::kPositionEmbedding}};
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int i = 0; i < kRolesPerLayer; ++i) {
      ids.push_back({static_cast<TensorRole>(static_cast<int>(TensorRole::kLn1Weight) + i), layer});
    }
  }
  ids.push_back({TensorRole::kFinalLnWeight});
  ids.push_back({TensorRole::kFinalLnBias});
  return ids;
}

size_t TensorIndex(const ModelConfig& config, TensorId id) {
  const int role = static_cast<int>(id.role);
  if (IsEmbedding(id.role)) return static_cast<size_t>(role);
  if (IsFinal(id.role)) {
    return static_cast<size_t>(2 + kRolesPerLayer * config.num_layers + role -
                               static_cast<int>(TensorRole::kFinalLnWeight));
  }
  return static_cast<size_t>(2 + kRolesPerLayer * id.layer + role -
                             static_cast<int>(TensorRole::kLn1Weight));
}

TensorSplit SplitOf(TensorRole role) { return Of(role).split; }

TensorShape LocalShape(const ModelConfig& config, TensorRole role, int tp_size) {
  TensorShape shape = FullShape(config, role);
  const TensorSplit split = SplitOf(role);
  if (split == TensorSplit::kRows || split == TensorSplit::kQkvRows) shape.rows /= tp_size;
  if (split == TensorSplit::kColumns) shape.cols /= tp_size;
  return shape;
}

std::string StoredName(ModelLayout layout, TensorId id) {
  const Role& role = Of(id.role);
  if (layout == ModelLayout::kHuggingFaceGpt2) {
    if (IsEmbedding(id.role) || IsFinal(id.role)) return std::string(role.hugging_face);
    return fmt::format("h.{}.{}", id.layer, role.hugging_face);
  }
  const bool a = layout == ModelLayout::kModelScopeA;
  if (IsEmbedding(id.role))
    return fmt::format("language_model.{}{}", a ? "embedding." : "", role.megatron);
  const std::string_view stack = a ? "language_model.encoder" : "language_model.transformer";
  if (IsFinal(id.role)) return fmt::format("{}.{}", stack, role.megatron);
  const bool self = a && role.megatron.starts_with("attention.");
  return fmt::format("{}.layers.{}.{}{}", stack, id.layer, self ? "self_" : "", role.megatron);
}

std::string_view StripPrefix(ModelLayout layout, std::string_view name) {
  const auto strip = [&name](std::string_view prefix) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  };
  if (layout == ModelLayout::kHuggingFaceGpt2) {
    strip("transformer.");
  } else {
    strip("module.");
    strip("model.");
  }
  return name;
}

bool IsTransposed(ModelLayout layout, TensorRole role) {
  return layout == ModelLayout::kHuggingFaceGpt2 && IsLinearWeight(role);
}

std::vector<int64_t> StoredShape(const ModelConfig& config, TensorRole role, int num_shards) {
  const TensorShape shape = LocalShape(config, role, num_shards);
  if (!IsEmbedding(role) && !IsLinearWeight(role)) return {shape.rows};
  if (IsTransposed(config.layout, role)) return {shape.cols, shape.rows};
  return {shape.rows, shape.cols};
}

bool IsIgnoredBuffer(ModelLayout layout, std::string_view stripped_name) {
  if (layout != ModelLayout::kHuggingFaceGpt2 || !stripped_name.starts_with("h.")) return false;
  stripped_name.remove_prefix(2);
  const size_t digits =
      std::min(stripped_name.find_first_not_of("0123456789"), stripped_name.size());
  const std::string_view rest = stripped_name.substr(digits);
  return digits > 0 && (rest == ".attn.bias" || rest == ".attn.masked_bias");
}

}  // namespace hanlin
