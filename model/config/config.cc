// See config.h: what follows from the sizes, and the published sizes.
#include "model/config/config.h"

#include <fmt/ranges.h>

#include <array>

#include "common/status/status.h"

namespace hanlin {
namespace {

struct Size {
  std::string_view name;
  ModelLayout layout;
  int32_t vocab_size, num_layers, hidden_size, num_heads;
  float layernorm_epsilon;
  int32_t end_token_id;
};

// The configurations as published with the models; those of 30B and 175B are not public and follow
// the model card. Note that 1.3B has 32 heads of 64, where OpenAI's table of the same size has 24
// of 128.
constexpr std::array<Size, 7> kSizes = {{
    {"base", ModelLayout::kModelScopeB, 25600, 12, 768, 12, 1e-12f, 3},
    {"large", ModelLayout::kModelScopeB, 25600, 24, 1024, 16, 1e-12f, 3},
    {"1.3B", ModelLayout::kModelScopeA, 51200, 24, 2048, 32, 1e-5f, 1},
    {"2.7B", ModelLayout::kModelScopeA, 51200, 32, 2560, 32, 1e-5f, 1},
    {"13B", ModelLayout::kModelScopeA, 51200, 40, 5120, 40, 1e-5f, 1},
    {"30B", ModelLayout::kModelScopeA, 51200, 48, 7168, 56, 1e-5f, 1},
    {"175B", ModelLayout::kModelScopeA, 51200, 96, 12288, 96, 1e-5f, 1},
}};

}  // namespace

std::string_view ToString(ModelLayout layout) {
  switch (layout) {
    case ModelLayout::kHuggingFaceGpt2:
      return "hf-gpt2";
    case ModelLayout::kModelScopeA:
      return "modelscope-a";
    case ModelLayout::kModelScopeB:
      return "modelscope-b";
  }
  return "unknown";
}

std::string_view ToString(GeluKind gelu) { return gelu == GeluKind::kTanh ? "tanh" : "erf"; }

int64_t ModelConfig::num_parameters() const {
  const int64_t h = hidden_size, f = ffn_size;
  const int64_t attention = 3 * h * h + 3 * h + h * h + h;
  const int64_t mlp = h * f + f + f * h + h;
  const int64_t layer = attention + mlp + 4 * h;
  return (int64_t{vocab_size} + max_positions) * h + num_layers * layer + 2 * h;
}

const std::vector<std::string>& PresetNames() {
  static const auto* const names = [] {
    auto* list = new std::vector<std::string>;
    for (const Size& size : kSizes) list->emplace_back(size.name);
    return list;
  }();
  return *names;
}

absl::StatusOr<ModelConfig> Preset(std::string_view name) {
  for (const Size& size : kSizes) {
    if (size.name != name) continue;
    ModelConfig config;
    config.name = size.name;
    config.layout = size.layout;
    config.vocab_size = size.vocab_size;
    config.hidden_size = size.hidden_size;
    config.num_layers = size.num_layers;
    config.num_heads = size.num_heads;
    config.head_dim = size.hidden_size / size.num_heads;
    config.ffn_size = 4 * size.hidden_size;
    config.max_positions = 2048;
    config.layernorm_epsilon = size.layernorm_epsilon;
    config.gelu = size.layout == ModelLayout::kModelScopeB ? GeluKind::kErf : GeluKind::kTanh;
    config.end_token_ids = {size.end_token_id};
    config.generation = {.tokens_to_generate = 100, .top_k = 0, .top_p = 0.9f, .temperature = 1.0f};
    return config;
  }
  return NotFound("no preset is called \"{}\", want one of {}", name,
                  fmt::join(PresetNames(), ", "));
}

absl::Status CheckTp(const ModelConfig& config, int tp_size) {
  const auto divides = [&](int64_t value) { return tp_size >= 1 && value % tp_size == 0; };
  const auto refuse = [&](std::string_view what, int32_t value) {
    return InvalidArgument(
        "tensor parallel degree {} does not divide the model's {} {}, want one of {}", tp_size,
        value, what, fmt::join(AllowedTpSizes(config), ", "));
  };
  if (!divides(config.num_heads)) return refuse("attention heads", config.num_heads);
  if (!divides(config.vocab_size)) return refuse("vocabulary rows", config.vocab_size);
  if (!divides(config.ffn_size)) return refuse("MLP columns", config.ffn_size);
  return absl::OkStatus();
}

std::vector<int> AllowedTpSizes(const ModelConfig& config, int limit) {
  std::vector<int> sizes;
  for (int tp = 1; tp <= limit; ++tp) {
    if (config.num_heads % tp == 0 && config.vocab_size % tp == 0 && config.ffn_size % tp == 0) {
      sizes.push_back(tp);
    }
  }
  return sizes;
}

}  // namespace hanlin
