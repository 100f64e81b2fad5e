// See model_folder.h.
#include "trainer/checkpoint/model_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/status/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/weight_map.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/safetensors_writer.h"

namespace hanlin {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json", "tokenizer_config.json",  "vocab.txt", "tokenizer.model", "merges.txt",
    "vocab.json",     "special_tokens_map.json"};

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

std::vector<float> Transposed(std::span<const float> values, const TensorShape& shape) {
  std::vector<float> result(values.size());
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.cols; ++j) {
      result[j * shape.rows + i] = values[i * shape.cols + j];
    }
  }
  return result;
}

absl::Status WriteWeights(const std::string& path, const ModelFolderOptions& options,
                          const TensorSource& tensor) {
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
    ASSIGN_OR_RETURN(const std::span<const float> values, tensor(i));
    if (IsTransposed(kLayout, ids[i].role)) {
      RETURN_IF_ERROR(writer->Append(Transposed(values, LocalShape(config, ids[i].role, 1))));
    } else {
      RETURN_IF_ERROR(writer->Append(values));
    }
  }
  return writer->Finish();
}

absl::Status CopyTokenizer(const ModelFolderOptions& options, const std::string& to) {
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

}  // namespace

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

absl::Status WriteModelFolder(const std::string& folder, const ModelFolderOptions& options,
                              const TensorSource& tensor) {
  RETURN_IF_ERROR(
      WriteFileAtomically(folder + "/config.json", ConfigJson(options.config, options.bfloat16)));
  RETURN_IF_ERROR(CopyTokenizer(options, folder));
  RETURN_IF_ERROR(WriteWeights(folder + std::string(kWeightsFile), options, tensor));
  return SyncDirectory(folder);
}

}  // namespace hanlin
