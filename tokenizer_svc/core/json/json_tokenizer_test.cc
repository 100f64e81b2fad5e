// Golden tokenizer.json folders, the rules of every section by example, and files that are no
// tokenizer.
#include "tokenizer_svc/core/json/json_tokenizer.h"

#include <string>

#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/testing/testing.h"
#include "tokenizer_svc/core/stream_decoder.h"
#include "tokenizer_svc/core/testing/golden_tokenizer.h"

namespace hanlin {
namespace {

std::shared_ptr<const Jieba> OpenJieba() {
  auto jieba = Jieba::Open(*DataDirectory() + "/jieba.bin");
  EXPECT_OK(jieba);
  return *jieba;
}

// Of a golden folder: what tokenizer_config.json says about jieba.
bool CutByJieba(const std::string& folder) {
  auto config = ReadFile(folder + "/tokenizer_config.json");
  return config.ok() && config->find("JiebaBPETokenizer") != std::string::npos;
}

TEST(JsonTokenizerTest, GoldensAreExact) {
  const auto jieba = OpenJieba();
  int checked = 0;
  for (const std::string kind : {"tokenizers", "hf"}) {
    for (const std::string& folder : testing::GoldenCases(kind)) {
      // A folder of expectations alone belongs to the default model.
      const bool own = FileExists(folder + "/tokenizer.json");
      const bool other =
          FileExists(folder + "/vocab.txt") || FileExists(folder + "/tokenizer.model");
      if (!own && other) continue;
      SCOPED_TRACE(folder);
      const std::string from = own ? folder : *DefaultModelDirectory();
      ASSERT_OK_AND_ASSIGN(const std::string contents, ReadFile(from + "/tokenizer.json"));
      ASSERT_OK_AND_ASSIGN(auto tokenizer,
                           MakeJsonTokenizer(contents, CutByJieba(from) ? jieba : nullptr));
      const std::string tokens = folder + "/expected_tokens.json";
      testing::CheckGoldenTokenizer(*tokenizer,
                                    FileExists(tokens) ? tokens : folder + "/expected.json");
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

TEST(JsonTokenizerTest, EveryGoldenTokenizerLoads) {
  for (const std::string& folder : testing::GoldenCases("modelscope")) {
    if (!FileExists(folder + "/tokenizer.json")) continue;
    ASSERT_OK_AND_ASSIGN(const std::string contents, ReadFile(folder + "/tokenizer.json"));
    EXPECT_OK(MakeJsonTokenizer(contents, nullptr)) << folder;
  }
}

}  // namespace
}  // namespace hanlin
