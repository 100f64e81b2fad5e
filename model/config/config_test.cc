// Model configurations: folder kinds, both dialects, refusals, presets, tensor parallel degrees.
#include "model/config/config.h"

#include <filesystem>

#include "common/io/data_dir.h"
#include "common/testing/testing.h"
#include "model/config/json.h"

namespace hanlin {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::GoldenCases;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

constexpr char kHuggingFace[] =
    R"({"model_type":"gpt2","vocab_size":100,"n_embd":32,"n_layer":2,"n_head":4,"n_positions":16,"eos_token_id":5)";
constexpr char kModelScope[] =
    R"({"vocab_size":100,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4)";

absl::StatusOr<ModelConfig> Load(const std::string& config, const std::string& configuration = "") {
  TempDir folder;
  folder.Write("config.json", config);
  if (!configuration.empty()) folder.Write("configuration.json", configuration);
  return LoadModelConfig(folder.path());
}

TEST(LoadModelConfig, ReadsHuggingFaceFieldsAndDefaults) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(std::string(kHuggingFace) + "}"));
  EXPECT_EQ(config.layout, ModelLayout::kHuggingFaceGpt2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.ffn_size, 128);
  EXPECT_EQ(config.max_positions, 16);
  EXPECT_EQ(config.gelu, GeluKind::kTanh);
  EXPECT_FLOAT_EQ(config.layernorm_epsilon, 1e-5f);
  EXPECT_THAT(config.end_token_ids, ElementsAre(5));
  EXPECT_FALSE(config.generation.top_p.has_value());
}

TEST(LoadModelConfig, ReadsHuggingFaceVariants) {
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig config,
      Load(
          R"({"model_type":"gpt2","vocab_size":100,"n_embd":32,"n_layer":2,"n_head":4,"n_positions":16,
               "eos_token_id":[1,7,100],"n_inner":48,"activation_function":"gelu","layer_norm_epsilon":1e-6,
               "top_k":50,"temperature":0.7})"));
  EXPECT_EQ(config.ffn_size, 48);
  EXPECT_EQ(config.gelu, GeluKind::kErf);
  EXPECT_THAT(config.end_token_ids, ElementsAre(1, 7)) << "100 is outside the vocabulary";
  EXPECT_EQ(config.generation.top_k, 50);
  EXPECT_FLOAT_EQ(*config.generation.temperature, 0.7f);
}

TEST(LoadModelConfig, MegatronKeyDecidesBetweenModelScopeAAndB) {
  const std::string config = std::string(kModelScope) + "}";
  ASSERT_OK_AND_ASSIGN(const ModelConfig a, Load(config, R"({"megatron":{}})"));
  EXPECT_EQ(a.layout, ModelLayout::kModelScopeA);
  EXPECT_EQ(a.gelu, GeluKind::kTanh);
  ASSERT_OK_AND_ASSIGN(const ModelConfig b, Load(config, R"({"framework":"pytorch"})"));
  EXPECT_EQ(b.layout, ModelLayout::kModelScopeB);
  EXPECT_EQ(b.gelu, GeluKind::kErf);
  EXPECT_EQ(b.max_positions, 2048);
  EXPECT_FLOAT_EQ(b.layernorm_epsilon, 1e-12f);
  EXPECT_THAT(b.end_token_ids, ElementsAre(1));
}

TEST(LoadModelConfig, OnlyLayoutAHasAnMlpWidthOfItsOwn) {
  const std::string config =
      std::string(kModelScope) +
      R"(,"ffn_hidden_size":96,"intermediate_size":7,"bias_gelu_fusion":false})";
  ASSERT_OK_AND_ASSIGN(const ModelConfig a, Load(config, R"({"megatron":{}})"));
  EXPECT_EQ(a.ffn_size, 96);
  EXPECT_EQ(a.gelu, GeluKind::kErf);
  ASSERT_OK_AND_ASSIGN(const ModelConfig b, Load(config));
  EXPECT_EQ(b.ffn_size, 128);
}

struct Refusal {
  std::string extra;  // appended to the object
  absl::StatusCode code;
  std::string message;
};

class RefusesTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusesTest, NamesTheOption) {
  const bool hugging_face = GetParam().extra.find("ms:") != 0;
  const std::string extra = hugging_face ? GetParam().extra : GetParam().extra.substr(3);
  const std::string head = hugging_face ? kHuggingFace : kModelScope;
  EXPECT_THAT(Load(head + "," + extra + "}", R"({"megatron":{}})"),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Options, RefusesTest,
    ::testing::Values(
        Refusal{R"("add_cross_attention":true)", kRefused, "add_cross_attention"},
        Refusal{R"("scale_attn_by_inverse_layer_idx":true)", kRefused,
                "scale_attn_by_inverse_layer_idx"},
        Refusal{R"("scale_attn_weights":false)", kRefused, "scale_attn_weights"},
        Refusal{R"("tie_word_embeddings":false)", kRefused, "tie_word_embeddings"},
        Refusal{R"("quantization_config":{})", kRefused, "quantization_config"},
        Refusal{R"("activation_function":"relu")", kRefused, "activation_function is relu"},
        Refusal{R"("eos_token_id":"x")", kInvalid, "eos_token_id"},
        Refusal{R"("n_inner":0)", kInvalid, "n_inner is 0"},
        Refusal{R"("n_inner":1.5)", kInvalid, "n_inner is 1.5"},
        Refusal{R"("temperature":-1)", kInvalid, "temperature is -1"},
        Refusal{R"("top_p":2)", kInvalid, "top_p is 2"},
        Refusal{R"(ms:"apply_residual_connection_post_layernorm":true)", kRefused,
                "apply_residual_connection_post_layernorm"},
        Refusal{R"(ms:"kv_channels":16)", kRefused, "kv_channels is 16"},
        Refusal{R"(ms:"model_type":"llama")", kRefused, "model_type is llama"},
        Refusal{R"(ms:"layernorm_epsilon":"tiny")", kInvalid, "layernorm_epsilon is \"tiny\""}));

TEST(LoadModelConfig, NamesMissingAndSenselessSizes) {
  EXPECT_THAT(Load(R"({"model_type":"gpt2","n_embd":32})"),
              StatusIs(kInvalid, HasSubstr("vocab_size")));
  EXPECT_THAT(
      Load(R"({"vocab_size":100,"hidden_size":33,"num_hidden_layers":2,"num_attention_heads":4})"),
      StatusIs(kInvalid, HasSubstr("hidden_size 33 is no multiple of num_attention_heads 4")));
  EXPECT_THAT(
      Load(R"({"vocab_size":-1,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4})"),
      StatusIs(kInvalid, HasSubstr("vocab_size is -1")));
  EXPECT_THAT(
      Load(
          R"({"vocab_size":1e300,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4})"),
      StatusIs(kInvalid, HasSubstr("vocab_size")));
}

TEST(LoadModelConfig, RefusesWhatIsNoModelFolder) {
  TempDir empty;
  EXPECT_THAT(LoadModelConfig(empty.path()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("config.json"), HasSubstr("Hugging Face"))));
  EXPECT_THAT(Load("{}"), StatusIs(kInvalid, HasSubstr("hidden_size")));
  EXPECT_THAT(Load("[1]"), StatusIs(kInvalid, HasSubstr("want an object")));
  EXPECT_THAT(Load("{\"a\":"), StatusIs(kInvalid, HasSubstr("not valid JSON")));
  EXPECT_THAT(Load(std::string(100000, '[')), StatusIs(kInvalid, HasSubstr("levels deep")));
}

TEST(LoadModelConfig, ReadsEveryGoldenFolderAndTheDefaultModel) {
  int folders = 0;
  for (const std::string kind : {"modelscope", "hf"}) {
    for (const std::string& folder : GoldenCases(kind)) {
      if (!std::filesystem::exists(folder + "/config.json")) continue;
      SCOPED_TRACE(folder);
      ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(folder));
      EXPECT_EQ(config.layout == ModelLayout::kHuggingFaceGpt2, kind == "hf");
      EXPECT_EQ(config.name, std::filesystem::path(folder).filename().string());
      ++folders;
    }
  }
  EXPECT_GE(folders, 13);
  ASSERT_OK_AND_ASSIGN(const std::string directory, DefaultModelDirectory());
  ASSERT_OK_AND_ASSIGN(const ModelConfig poet, LoadModelConfig(directory + "/"));
  EXPECT_EQ(poet.name, "hanlin-poet");
  EXPECT_EQ(poet.head_dim, 80);
}

TEST(Preset, HasThePublishedNumbersOfParameters) {
  const std::vector<std::pair<std::string, int64_t>> published = {
      {"base", 106289664},  {"large", 330622976}, {"1.3B", 1317654528},  {"2.7B", 2653967360},
      {"13B", 12858214400}, {"30B", 29981177856}, {"175B", 174615846912}};
  ASSERT_EQ(PresetNames().size(), published.size());
  for (const auto& [name, parameters] : published) {
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, Preset(name));
    EXPECT_EQ(config.num_parameters(), parameters) << name;
    EXPECT_EQ(config.head_dim * config.num_heads, config.hidden_size) << name;
  }
  EXPECT_THAT(Preset("7B"),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("7B"), HasSubstr("2.7B"))));
}

TEST(CheckTp, NamesTheValueAndTheDegreesThatDivide) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig base, Preset("base"));
  EXPECT_THAT(AllowedTpSizes(base), ElementsAre(1, 2, 4));
  EXPECT_OK(CheckTp(base, 4));
  EXPECT_THAT(CheckTp(base, 8),
              StatusIs(kInvalid, AllOf(HasSubstr("8"), HasSubstr("12 attention heads"),
                                       HasSubstr("1, 2, 4"))));
  EXPECT_THAT(CheckTp(base, 3), StatusIs(kInvalid, HasSubstr("25600 vocabulary rows")));
  EXPECT_THAT(CheckTp(base, 0), StatusIs(kInvalid, HasSubstr("degree 0")));
  EXPECT_THAT(CheckTp(base, -1), StatusIs(kInvalid, HasSubstr("degree -1")));
  ASSERT_OK_AND_ASSIGN(const ModelConfig big, Preset("13B"));
  EXPECT_THAT(AllowedTpSizes(big), ElementsAre(1, 2, 4, 5, 8, 10, 20, 40));
}

}  // namespace
}  // namespace hanlin
