// What a GPT model of the family looks like: sizes, activation, end tokens and the generation
// defaults that its folder asks for. Read from config.json (Hugging Face GPT-2 or ModelScope A / B)
// or taken from a preset. Plain data: copy it freely between threads.
#ifndef HANLIN_MODEL_CONFIG_CONFIG_H_
#define HANLIN_MODEL_CONFIG_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanlin {

// How the weights are named and arranged on disk. The forward pass does not depend on it.
enum class ModelLayout {
  kHuggingFaceGpt2,  // [in, out] matrices, q|k|v blocks
  kModelScopeA,      // "distributed": Megatron names, one file per shard, q,k,v interleaved by head
  kModelScopeB,      // base and large: one pytorch_model.bin, q|k|v blocks
};

enum class GeluKind { kTanh, kErf };

// Names for messages and JSON: "hf-gpt2", "modelscope-a", "modelscope-b"; "tanh", "erf".
std::string_view ToString(ModelLayout layout);
std::string_view ToString(GeluKind gelu);

// What config.json asks for when a request leaves the field unset. Unset here: the server's own
// default applies.
struct GenerationDefaults {
  std::optional<int32_t> tokens_to_generate;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> temperature;
};

struct ModelConfig {
  std::string name;  // last component of the folder, or the preset's name
  ModelLayout layout = ModelLayout::kModelScopeA;
  int32_t vocab_size = 0;  // rows of the word embedding, padding rows included
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;       // hidden_size / num_heads
  int32_t ffn_size = 0;       // width of the MLP
  int32_t max_positions = 0;  // the context: prompt plus continuation
  float layernorm_epsilon = 1e-5f;
  GeluKind gelu = GeluKind::kTanh;
  std::vector<int32_t>
      end_token_ids;  // each inside the vocabulary; empty: only the length ends a continuation
  GenerationDefaults generation;

  // Learned numbers of the whole model; the output projection is the word embedding and counts
  // once.
  int64_t num_parameters() const;
};

// Reads the configuration of a model folder. The kind of folder: config.json with `model_type:
// gpt2` is Hugging Face; else configuration.json with `megatron` is ModelScope A; else ModelScope
// B. NOT_FOUND lists what was looked for; FAILED_PRECONDITION names an option that is not
// implemented; INVALID_ARGUMENT a value that makes no sense.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory);

// The seven published sizes: base, large, 1.3B, 2.7B, 13B, 30B, 175B. NOT_FOUND lists them.
absl::StatusOr<ModelConfig> Preset(std::string_view name);
const std::vector<std::string>& PresetNames();

// Whether the model can be cut into `tp_size` ranks: heads, vocabulary and MLP width must divide.
// INVALID_ARGUMENT names the value that does not and the degrees that do.
absl::Status CheckTp(const ModelConfig& config, int tp_size);

// The degrees up to `limit` that CheckTp accepts, ascending.
std::vector<int> AllowedTpSizes(const ModelConfig& config, int limit = 64);

}  // namespace hanlin

#endif  // HANLIN_MODEL_CONFIG_CONFIG_H_
