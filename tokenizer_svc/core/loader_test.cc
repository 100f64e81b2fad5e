// Every golden folder that holds a tokenizer loads by the folder rule and gives its golden ids; and
// each rule, error and the fingerprint by example.
#include "tokenizer_svc/core/loader.h"

#include <filesystem>
#include <set>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/testing/golden_tokenizer.h"

namespace hanlin {
namespace {

using ::hanlin::testing::GoldenCases;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::string_view kVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n床\n前\n";
constexpr std::string_view kTokenizerJson = R"({
  "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
  "post_processor": null, "decoder": {"type": "Fuse"},
  "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "床": 1, "前": 2},
            "merges": []}})";

TEST(LoadTokenizerTest, EveryGoldenFolderGivesItsGoldenIds) {
  int checked = 0;
  for (const std::string kind : {"tokenizers", "hf"}) {
    for (const std::string& folder : GoldenCases(kind)) {
      SCOPED_TRACE(folder);
      auto tokenizer = LoadTokenizer(folder);
      if (absl::IsNotFound(tokenizer.status())) {
        // A folder whose file is that of the default model.
        ASSERT_OK_AND_ASSIGN(const std::string model, DefaultModelDirectory());
        tokenizer = LoadTokenizer(model);
      }
      ASSERT_OK(tokenizer);
      const std::string tokens = folder + "/expected_tokens.json";
      testing::CheckGoldenTokenizer(**tokenizer,
                                    FileExists(tokens) ? tokens : folder + "/expected.json");
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

TEST(LoadTokenizerTest, EveryGoldenModelFolderHasATokenizer) {
  for (const std::string& folder : GoldenCases("modelscope")) {
    if (!FileExists(folder + "/config.json")) continue;
    SCOPED_TRACE(folder);
    ASSERT_OK_AND_ASSIGN(auto tokenizer, LoadTokenizer(folder));
    const bool jieba = FileExists(folder + "/tokenizer.json");
    ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode("床前"));
    EXPECT_EQ(encoding.segments.has_value(), jieba);
    EXPECT_EQ(tokenizer->decoder_spec()->join_chinese, !jieba);
    EXPECT_EQ(tokenizer->fingerprint().size(), 64u);
  }
}

TEST(LoadTokenizerTest, TokenizerClassDecidesBeforeTheFilesDo) {
  TempDir dir;
  dir.Write("tokenizer.json", kTokenizerJson);
  dir.Write("vocab.txt", kVocab);
  ASSERT_OK_AND_ASSIGN(auto json, LoadTokenizer(dir.path()));
  EXPECT_EQ(json->vocab_size(), 3);
  dir.Write("tokenizer_config.json", R"({"tokenizer_class": "BertTokenizer"})");
  ASSERT_OK_AND_ASSIGN(auto bert, LoadTokenizer(dir.path()));
  EXPECT_EQ(bert->kind(), "wordpiece");
  dir.Write("tokenizer_config.json", R"({"tokenizer_class": "JiebaBPETokenizer"})");
  ASSERT_OK_AND_ASSIGN(auto jieba, LoadTokenizer(dir.path()));
  ASSERT_OK_AND_ASSIGN(const Encoding encoding, jieba->Encode("床前"));
  EXPECT_TRUE(encoding.segments.has_value());
  dir.Write("tokenizer_config.json", R"({"tokenizer_class": "CpmTokenizer"})");
  EXPECT_THAT(LoadTokenizer(dir.path()),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("CpmTokenizer")));
}

TEST(LoadTokenizerTest, MegatronInConfigurationMeansJieba) {
  TempDir dir;
  dir.Write("tokenizer.json", kTokenizerJson);
  dir.Write("configuration.json", R"({"megatron": {}})");
  ASSERT_OK_AND_ASSIGN(auto jieba, LoadTokenizer(dir.path()));
  ASSERT_OK_AND_ASSIGN(const Encoding encoding, jieba->Encode("床前"));
  EXPECT_TRUE(encoding.segments.has_value());
}

TEST(LoadTokenizerTest, OnlyModelScopeBaseFoldersJoinChinese) {
  TempDir dir;
  dir.Write("vocab.txt", kVocab);
  const std::vector<int32_t> ids = {2, 4, 5, 3};
  const auto decode = [&] {
    auto tokenizer = LoadTokenizer(dir.path());
    EXPECT_OK(tokenizer);
    return StreamDecoder::Decode(*(*tokenizer)->decoder_spec(), ids);
  };
  EXPECT_EQ(decode(), "床 前");
  dir.Write("config.json", R"({"model_type": "gpt2"})");
  EXPECT_EQ(decode(), "床 前");
  dir.Write("config.json", R"({"vocab_size": 6})");
  EXPECT_EQ(decode(), "床前");
}

TEST(LoadTokenizerTest, OptionsOfBertTokenizerAreRead) {
  TempDir dir;
  dir.Write("vocab.txt", "<u>\n<c>\n<s>\nab\nAB\n");
  dir.Write("tokenizer_config.json",
            R"({"tokenizer_class": "BertTokenizer", "do_lower_case": false, "unk_token": "<u>",
                "cls_token": {"content": "<c>"}, "sep_token": "<s>"})");
  ASSERT_OK_AND_ASSIGN(auto tokenizer, LoadTokenizer(dir.path()));
  ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode("AB ab x"));
  EXPECT_THAT(encoding.ids, ::testing::ElementsAre(1, 4, 3, 0, 2));
  dir.Write("tokenizer_config.json", R"({"tokenizer_class": "BertTokenizer", "do_lower_case": 1})");
  EXPECT_THAT(LoadTokenizer(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("do_lower_case is 1")));
}

TEST(LoadTokenizerTest, ConfigurationsThatMakeNoSenseAreNamed) {
  const std::tuple<const char*, absl::StatusCode, const char*> cases[] = {
      {R"({"tokenizer_class": 7})", absl::StatusCode::kInvalidArgument,
       "tokenizer_class is not a string"},
      {R"({"tokenizer_class": "JiebaBPETokenizer"})", absl::StatusCode::kNotFound,
       "looked for tokenizer.json (tokenizer_class JiebaBPETokenizer)"},
      {R"({"strip_accents": "no"})", absl::StatusCode::kInvalidArgument,
       "strip_accents is \"no\", want true or false"},
      {R"({"do_basic_tokenize": false})", absl::StatusCode::kUnimplemented,
       "do_basic_tokenize false is not implemented"},
      {R"({"unk_token": 1})", absl::StatusCode::kInvalidArgument, "unk_token is 1, want a string"},
      {R"({"cls_token": {"id": 3}})", absl::StatusCode::kInvalidArgument,
       "cls_token is {\"id\":3}, want a string"},
      {R"({"sep_token": "[END]"})", absl::StatusCode::kInvalidArgument,
       "6 tokens, but not [END], want it in the list"},
  };
  TempDir dir;
  dir.Write("vocab.txt", kVocab);
  for (const auto& [config, code, message] : cases) {
    dir.Write("tokenizer_config.json", config);
    EXPECT_THAT(LoadTokenizer(dir.path()), StatusIs(code, HasSubstr(message)));
  }
  dir.Write("tokenizer_config.json", "{}");
  EXPECT_OK(LoadTokenizer(dir.path()));
}

TEST(LoadTokenizerTest, FingerprintDependsOnEveryFileAndOnNothingElse) {
  TempDir dir;
  std::set<std::string> seen;
  const auto fingerprint = [&] {
    auto tokenizer = LoadTokenizer(dir.path());
    EXPECT_OK(tokenizer);
    return (*tokenizer)->fingerprint();
  };
  dir.Write("vocab.txt", kVocab);
  seen.insert(fingerprint());
  dir.Write("README.md", "not a tokenizer file");
  dir.Write("config.json", R"({"model_type": "gpt2"})");
  seen.insert(fingerprint());
  EXPECT_EQ(seen.size(), 1u);
  dir.Write("tokenizer_config.json", R"({"do_lower_case": true})");
  seen.insert(fingerprint());
  dir.Write("vocab.txt", std::string(kVocab) + "月\n");
  seen.insert(fingerprint());
  dir.Write("config.json", "{}");
  seen.insert(fingerprint());
  EXPECT_EQ(seen.size(), 4u);
}

TEST(LoadTokenizerTest, FoldersWithoutATokenizerSayWhatWasLookedFor) {
  TempDir dir;
  const auto kNotFound = absl::StatusCode::kNotFound;
  EXPECT_THAT(LoadTokenizer(dir.path()),
              StatusIs(kNotFound, AllOf(HasSubstr("tokenizer.json"), HasSubstr("vocab.txt"),
                                        HasSubstr("tokenizer.model"))));
  EXPECT_THAT(LoadTokenizer(dir.path() + "/none"), StatusIs(kNotFound, HasSubstr("none")));
  dir.Write("tokenizer_config.json", "[1");
  EXPECT_THAT(LoadTokenizer(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a JSON object")));
}

}  // namespace
}  // namespace hanlin
