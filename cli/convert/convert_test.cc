// Every golden model folder, rewritten: the same bits, the same tokenizer; and what is refused.
#include "cli/convert/convert.h"

#include <filesystem>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "kernels/base/types.h"
#include "model/checkpoint/checkpoint.h"
#include "tokenizer_svc/core/loader.h"

namespace hanlin::cli {
namespace {
namespace fs = std::filesystem;
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

std::vector<std::vector<float>> AllValues(const std::string& folder) {
  const ModelConfig config = LoadModelConfig(folder).value();
  const auto checkpoint = Checkpoint::Open(folder, config).value();
  std::vector<std::vector<float>> all;
  for (const TensorId id : AllTensors(config)) {
    all.emplace_back(LocalShape(config, id.role, 1).size());
    EXPECT_OK(checkpoint->Read(id, 0, 1, all.back().data()));
  }
  return all;
}

TEST(ConvertTest, EveryLayoutComesOutWithTheSameBitsAndSizes) {
  const testing::TempDir directory;
  int folders = 0;
  std::vector<std::string> cases = testing::GoldenCases("modelscope");
  for (std::string& from : testing::GoldenCases("hf")) cases.push_back(std::move(from));
  for (const std::string& from : cases) {
    if (!FileExists(from + "/config.json")) continue;  // a tokenizer's
    SCOPED_TRACE(from);
    const std::string to = fmt::format("{}/{}", directory.path(), folders++);
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(from));
    ASSERT_OK_AND_ASSIGN(const int64_t parameters, Convert({.from = from, .to = to}));
    EXPECT_EQ(parameters, config.num_parameters());
    ASSERT_OK_AND_ASSIGN(const ModelConfig written, LoadModelConfig(to));
    EXPECT_EQ(written.layout, ModelLayout::kHuggingFaceGpt2);
    EXPECT_EQ(written.num_heads, config.num_heads);
    EXPECT_EQ(written.gelu, config.gelu);
    EXPECT_EQ(written.layernorm_epsilon, config.layernorm_epsilon);
    EXPECT_EQ(written.end_token_ids, config.end_token_ids);
    EXPECT_EQ(AllValues(to), AllValues(from));
  }
  EXPECT_GE(folders, 13);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()),
            folders)
      << "nothing else is left";
}

TEST(ConvertTest, Bf16IsRoundedOnceAndTheTokenizerIsTheSame) {
  const testing::TempDir directory;
  ASSERT_OK_AND_ASSIGN(const std::string from, DefaultModelDirectory());
  const std::string to = directory.path() + "/deep/er/";
  ASSERT_OK(Convert({.from = from, .to = to, .dtype = "bf16"}));
  const auto want = AllValues(from), got = AllValues(to);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    for (size_t j = 0; j < want[i].size(); ++j) {
      ASSERT_EQ(got[i][j], ToFloat(ToBFloat16(want[i][j]))) << i << " " << j;
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto before, LoadTokenizer(from));
  ASSERT_OK_AND_ASSIGN(const auto after, LoadTokenizer(to));
  EXPECT_EQ(after->fingerprint(), before->fingerprint());
}

TEST(ConvertTest, WhatCannotBeWrittenIsRefusedAndLeavesNothing) {
  const testing::TempDir directory;
  ASSERT_OK_AND_ASSIGN(const std::string from, DefaultModelDirectory());
  const std::string to = directory.path() + "/to";
  EXPECT_THAT(Convert({.from = from, .to = to, .format = "modelscope"}),
              StatusIs(Code::kInvalidArgument, HasSubstr("--format is \"modelscope\", want hf")));
  EXPECT_THAT(Convert({.from = from, .to = to, .dtype = "int8"}),
              StatusIs(Code::kInvalidArgument, HasSubstr("--dtype is \"int8\"")));
  EXPECT_THAT(Convert({.from = "/no/such", .to = to}),
              StatusIs(Code::kNotFound, HasSubstr("/no/such")));
  EXPECT_THAT(Convert({.from = from, .to = directory.path()}),
              StatusIs(Code::kFailedPrecondition, HasSubstr("exists")));
  EXPECT_THAT(Convert({.from = from, .to = "/dev/null/to"}),
              StatusIs(Code::kInvalidArgument, HasSubstr("cannot create /dev/null/")));
  EXPECT_TRUE(fs::is_empty(directory.path()));

  // A shard that is cut off shows when the file is opened, or when its tensors are read.
  directory.Write("damaged/config.json", "");
  for (const auto& entry : fs::directory_iterator(from)) {
    fs::copy_file(entry.path(),
                  fmt::format("{}/damaged/{}", directory.path(), entry.path().filename().string()),
                  fs::copy_options::overwrite_existing);
  }
  const std::string shard = directory.path() + "/damaged/model-00002-of-00002.safetensors";
  fs::resize_file(shard, fs::file_size(shard) / 2);
  EXPECT_THAT(Convert({.from = directory.path() + "/damaged", .to = to}),
              StatusIs(Code::kDataLoss, HasSubstr("model-00002-of-00002.safetensors")));
  EXPECT_FALSE(fs::exists(to));
}

}  // namespace
}  // namespace hanlin::cli
