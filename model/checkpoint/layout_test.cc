// The weight map against the definition: one synthetic model whose canonical numbers are known is
// written in every layout by formulas that do not share code with the reader, and has to come back.
// Also: the output projection of GPT-2.
#include <functional>

#include "common/testing/testing.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/test_files.h"
#include "model/checkpoint/weight_map.h"

namespace hanlin {
namespace {

using ::testing::HasSubstr;
using testing::PickleWriter;
using testing::RawBytes;
using testing::StatusIs;
using testing::TempDir;

// 2 layers, 4 heads of 3, so that no two sizes are equal by chance.
ModelConfig SmallConfig(ModelLayout layout) {
  ModelConfig config;
  config.layout = layout;
  config.vocab_size = 20;
  config.hidden_size = 12;
  config.num_layers = 2;
  config.num_heads = 4;
  config.head_dim = 3;
  config.ffn_size = 32;
  config.max_positions = 5;
  return config;
}

// Canonical element [row, col]: no two of a model are equal.
float Value(const ModelConfig& config, TensorId id, int64_t row, int64_t col) {
  return static_cast<float>(TensorIndex(config, id) * 4096 + static_cast<size_t>(row * 64 + col));
}

struct Matrix {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// [rows, cols] of at(row, col), or a vector when cols is 0.
Matrix Fill(int64_t rows, int64_t cols, const std::function<float(int64_t, int64_t)>& at) {
  Matrix matrix;
  matrix.shape = cols == 0 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, cols};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < std::max<int64_t>(cols, 1); ++col)
      matrix.values.push_back(at(row, col));
  }
  return matrix;
}

using File = std::vector<std::pair<std::string, Matrix>>;

// GPT2LMHeadModel's state dict: Conv1D weights are [in, out]; c_attn is [Q; K; V].
File HuggingFaceFile(const ModelConfig& config) {
  File file;
  const auto add = [&](const std::string& name, TensorId id, int64_t rows, int64_t cols,
                       bool conv1d) {
    const auto at = [=](int64_t r, int64_t c) { return Value(config, id, r, c); };
    const auto transposed = [=](int64_t r, int64_t c) { return Value(config, id, c, r); };
    file.emplace_back("transformer." + name,
                      conv1d ? Fill(cols, rows, transposed) : Fill(rows, cols, at));
  };
  add("wte.weight", {TensorRole::kWordEmbedding}, 20, 12, false);
  add("wpe.weight", {TensorRole::kPositionEmbedding}, 5, 12, false);
  for (int i = 0; i < 2; ++i) {
    const std::string h = fmt::format("h.{}.", i);
    add(h + "ln_1.weight", {TensorRole::kLn1Weight, i}, 12, 0, false);
    add(h + "ln_1.bias", {TensorRole::kLn1Bias, i}, 12, 0, false);
    add(h + "attn.c_attn.weight", {TensorRole::kQkvWeight, i}, 36, 12, true);
    add(h + "attn.c_attn.bias", {TensorRole::kQkvBias, i}, 36, 0, false);
    add(h + "attn.c_proj.weight", {TensorRole::kAttnOutWeight, i}, 12, 12, true);
    add(h + "attn.c_proj.bias", {TensorRole::kAttnOutBias, i}, 12, 0, false);
    add(h + "ln_2.weight", {TensorRole::kLn2Weight, i}, 12, 0, false);
    add(h + "ln_2.bias", {TensorRole::kLn2Bias, i}, 12, 0, false);
    add(h + "mlp.c_fc.weight", {TensorRole::kMlpUpWeight, i}, 32, 12, true);
    add(h + "mlp.c_fc.bias", {TensorRole::kMlpUpBias, i}, 32, 0, false);
    add(h + "mlp.c_proj.weight", {TensorRole::kMlpDownWeight, i}, 12, 32, true);
    add(h + "mlp.c_proj.bias", {TensorRole::kMlpDownBias, i}, 12, 0, false);
  }
  add("ln_f.weight", {TensorRole::kFinalLnWeight}, 12, 0, false);
  add("ln_f.bias", {TensorRole::kFinalLnBias}, 12, 0, false);
  return file;
}

// One shard of `shards` of ModelScope A: Megatron's names, QKV row head * 3d + p * d + j of the
// shard's heads.
File ModelScopeFile(const ModelConfig& config, int shard, int shards) {
  File file;
  const int64_t h = 12 / shards, ffn = 32 / shards, vocab = 20 / shards;
  const auto add = [&](const std::string& name, TensorId id, int64_t rows, int64_t cols,
                       int64_t first_row, int64_t first_col) {
    file.emplace_back(name, Fill(rows, cols, [=](int64_t r, int64_t c) {
                        return Value(config, id, first_row + r, first_col + c);
                      }));
  };
  const auto add_qkv = [&](const std::string& name, TensorId id, int64_t cols) {
    file.emplace_back(name, Fill(3 * h, cols, [=](int64_t r, int64_t c) {
                        const int64_t head = r / 9, p = r % 9 / 3, j = r % 3;
                        return Value(config, id, p * 12 + shard * h + head * 3 + j, c);
                      }));
  };
  add("language_model.embedding.word_embeddings.weight", {TensorRole::kWordEmbedding}, vocab, 12,
      shard * vocab, 0);
  add("language_model.embedding.position_embeddings.weight", {TensorRole::kPositionEmbedding}, 5,
      12, 0, 0);
  for (int i = 0; i < 2; ++i) {
    const std::string l = fmt::format("language_model.encoder.layers.{}.", i);
    add(l + "input_layernorm.weight", {TensorRole::kLn1Weight, i}, 12, 0, 0, 0);
    add(l + "input_layernorm.bias", {TensorRole::kLn1Bias, i}, 12, 0, 0, 0);
    add_qkv(l + "self_attention.query_key_value.weight", {TensorRole::kQkvWeight, i}, 12);
    add_qkv(l + "self_attention.query_key_value.bias", {TensorRole::kQkvBias, i}, 0);
    add(l + "self_attention.dense.weight", {TensorRole::kAttnOutWeight, i}, 12, h, 0, shard * h);
    add(l + "self_attention.dense.bias", {TensorRole::kAttnOutBias, i}, 12, 0, 0, 0);
    add(l + "post_attention_layernorm.weight", {TensorRole::kLn2Weight, i}, 12, 0, 0, 0);
    add(l + "post_attention_layernorm.bias", {TensorRole::kLn2Bias, i}, 12, 0, 0, 0);
    add(l + "mlp.dense_h_to_4h.weight", {TensorRole::kMlpUpWeight, i}, ffn, 12, shard * ffn, 0);
    add(l + "mlp.dense_h_to_4h.bias", {TensorRole::kMlpUpBias, i}, ffn, 0, shard * ffn, 0);
    add(l + "mlp.dense_4h_to_h.weight", {TensorRole::kMlpDownWeight, i}, 12, ffn, 0, shard * ffn);
    add(l + "mlp.dense_4h_to_h.bias", {TensorRole::kMlpDownBias, i}, 12, 0, 0, 0);
  }
  add("language_model.encoder.final_layernorm.weight", {TensorRole::kFinalLnWeight}, 12, 0, 0, 0);
  add("language_model.encoder.final_layernorm.bias", {TensorRole::kFinalLnBias}, 12, 0, 0, 0);
  return file;
}

std::string AsSafetensors(const File& file) {
  std::string header = "{", data;
  for (const auto& [name, matrix] : file) {
    const std::string bytes = RawBytes(matrix.values);
    header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":{},"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", name, ShapeString(matrix.shape),
                          data.size(), data.size() + bytes.size());
    data += bytes;
  }
  return testing::Safetensors(header + "}", data);
}

std::string AsTorchZip(const File& file) {
  PickleWriter writer;
  std::vector<testing::Storage> storages;
  writer.Raw("}(");
  for (const auto& [name, matrix] : file) {
    const std::string key = std::to_string(storages.size());
    writer.String(name).Tensor("FloatStorage", key, static_cast<int64_t>(matrix.values.size()), 0,
                               matrix.shape, ContiguousStrides(matrix.shape));
    storages.emplace_back(key, RawBytes(matrix.values));
  }
  return testing::TorchZip(writer.Raw("u").Stop(), storages);
}

// Every element of every tensor is the canonical one.
void ExpectCanonical(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  for (const TensorId id : AllTensors(config)) {
    const TensorShape shape = LocalShape(config, id.role, 1);
    std::vector<float> values(static_cast<size_t>(shape.size()));
    ASSERT_OK(checkpoint.Read(id, 0, 1, values.data()));
    for (int64_t i = 0; i < shape.size(); ++i) {
      ASSERT_EQ(values[static_cast<size_t>(i)], Value(config, id, i / shape.cols, i % shape.cols))
          << ToString(id) << " [" << i / shape.cols << ", " << i % shape.cols << "]";
    }
  }
}

TEST(Layout, HuggingFaceMatricesAreTransposed) {
  const ModelConfig config = SmallConfig(ModelLayout::kHuggingFaceGpt2);
  TempDir folder;
  folder.Write("model.safetensors", AsSafetensors(HuggingFaceFile(config)));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder.path(), config));
  ExpectCanonical(*checkpoint);
}

class ShardsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Degrees, ShardsTest, ::testing::Values(1, 2, 4));

TEST_P(ShardsTest, HeadsOfModelScopeAAreTakenApart) {
  const ModelConfig config = SmallConfig(ModelLayout::kModelScopeA);
  TempDir folder;
  for (int shard = 0; shard < GetParam(); ++shard) {
    folder.Write(fmt::format("model/mp_rank_{:02}_model_states.pt", shard),
                 AsTorchZip(ModelScopeFile(config, shard, GetParam())));
  }
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder.path(), config));
  ExpectCanonical(*checkpoint);
}

TEST(Layout, OutputProjectionMustEqualTheEmbedding) {
  const ModelConfig config = SmallConfig(ModelLayout::kHuggingFaceGpt2);
  File file = HuggingFaceFile(config);
  file.emplace_back("lm_head.weight", file[0].second);
  TempDir tied;
  tied.Write("model.safetensors", AsSafetensors(file));
  EXPECT_OK(Checkpoint::Open(tied.path(), config));

  file.back().second.values.back() += 1;
  TempDir untied;
  untied.Write("model.safetensors", AsSafetensors(file));
  EXPECT_THAT(Checkpoint::Open(untied.path(), config),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("lm_head.weight differs")));
}

TEST(Layout, TensorsOfAnotherTypeAreRefused) {
  const ModelConfig config = SmallConfig(ModelLayout::kHuggingFaceGpt2);
  std::string bytes = AsSafetensors(HuggingFaceFile(config));
  bytes.replace(bytes.find("F32"), 3, "I32");
  TempDir folder;
  folder.Write("model.safetensors", bytes);
  EXPECT_THAT(Checkpoint::Open(folder.path(), config),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has type int32")));
}

TEST(Layout, SameNameWithAndWithoutPrefixIsRefused) {
  const ModelConfig config = SmallConfig(ModelLayout::kHuggingFaceGpt2);
  File file = HuggingFaceFile(config);
  file.emplace_back("wte.weight", file[0].second);
  TempDir folder;
  folder.Write("model.safetensors", AsSafetensors(file));
  EXPECT_THAT(Checkpoint::Open(folder.path(), config),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("wte.weight")));
}

}  // namespace
}  // namespace hanlin
