// The golden models, whole: logits of every stored prompt and the greedy continuations, at every
// tensor-parallel degree that the model allows, whatever the number of shards on disk.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/io/file.h"
#include "common/testing/testing.h"
#include "model/checkpoint/safetensors.h"
#include "model/config/config.h"
#include "model/forward/testing.h"

namespace hanlin {
namespace {

using testing::Device;
using testing::GoldenCases;
using testing::GroupOptions;
using testing::Ids;
using testing::StepDriver;
using testing::WithGroup;

constexpr float kTolerance = 1e-4f;  // goldens/README.md, "Tolerances"

struct GoldenCase {
  std::string directory;
  nlohmann::json expected;
  StoredTensors arrays;
};

// Rows without the padding that `prompt` says they have.
std::vector<Ids> Unpadded(std::vector<Ids> rows, const nlohmann::json& prompt) {
  if (!prompt.contains("lengths")) return rows;
  for (size_t i = 0; i < rows.size(); ++i) rows[i].resize(prompt["lengths"][i].get<size_t>());
  return rows;
}

std::vector<Ids> PromptRows(const nlohmann::json& prompt) {
  return Unpadded(prompt["tokens"].get<std::vector<Ids>>(), prompt);
}

// Every case with prompts, the folders of ModelScope and of Hugging Face alike.
std::vector<GoldenCase> CasesWithPrompts() {
  std::vector<GoldenCase> cases;
  for (const char* kind : {"modelscope", "hf"}) {
    for (const std::string& directory : GoldenCases(kind)) {
      const auto text = ReadFile(directory + "/expected.json");
      GoldenCase golden = {directory, nlohmann::json::parse(text.value(), nullptr, false), {}};
      if (!golden.expected.contains("prompts")) continue;
      golden.arrays = ReadSafetensors(directory + "/expected.safetensors").value();
      cases.push_back(std::move(golden));
    }
  }
  return cases;
}

void ExpectLogits(const GoldenCase& golden, StepDriver* driver) {
  for (const auto& [name, prompt] : golden.expected["prompts"].items()) {
    const StoredTensor& stored = golden.arrays.at(prompt["logits"].get<std::string>());
    const auto* want = reinterpret_cast<const float*>(stored.data);  // [b, s, V]
    const int64_t padded = stored.shape[1];
    const int64_t vocab = stored.shape[2];
    const std::vector<Ids> rows = PromptRows(prompt);
    std::vector<StepDriver::Work> works;
    for (size_t i = 0; i < rows.size(); ++i) works.push_back({static_cast<int>(i), rows[i], true});
    const std::vector<float> logits = driver->Step(works);
    const float* got = logits.data();
    float worst = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < std::ssize(rows[i]) * vocab; ++j) {
        worst = std::max(worst, std::abs(*got++ - want[i * padded * vocab + j]));
      }
      driver->Drop(static_cast<int>(i));
    }
    EXPECT_LT(worst, kTolerance) << name;
    EXPECT_EQ(got, logits.data() + logits.size()) << name;
  }
}

// `prompt` of the greedy entry `key`: the (padded) ids of the prompt of the same name, the name of
// a prompt, or its first tokens, "full[:58]".
std::vector<Ids> GreedyPrompts(const GoldenCase& golden, const std::string& key,
                               const nlohmann::json& greedy) {
  const nlohmann::json& prompts = golden.expected["prompts"];
  if (greedy["prompt"].is_array()) {
    return Unpadded(greedy["prompt"].get<std::vector<Ids>>(), prompts.value(key, nlohmann::json()));
  }
  const std::string name = greedy["prompt"].get<std::string>();
  const size_t cut = name.find("[:");
  std::vector<Ids> rows = PromptRows(prompts[name.substr(0, cut)]);
  if (cut != std::string::npos) {
    for (Ids& row : rows) row.resize(std::stoul(name.substr(cut + 2)));
  }
  return rows;
}

void ExpectSequences(const std::vector<Ids>& prompts, const nlohmann::json& entry,
                     StepDriver* driver) {
  const auto want = entry["sequences"].get<std::vector<Ids>>();
  std::vector<int> lengths;
  for (const Ids& ids : want) lengths.push_back(static_cast<int>(ids.size()));
  EXPECT_EQ(testing::Greedy(driver, prompts, lengths), want);
}

void ExpectGreedy(const GoldenCase& golden, StepDriver* driver) {
  // In `greedy_eod` finished rows go on until all are, so its ids too are those of the stored
  // length.
  for (const char* kind : {"greedy", "greedy_eod"}) {
    if (!golden.expected.contains(kind)) continue;
    for (const auto& [name, greedy] : golden.expected[kind].items()) {
      SCOPED_TRACE(name);
      ExpectSequences(GreedyPrompts(golden, name, greedy), greedy, driver);
    }
  }
  if (golden.expected.contains("bert_prompt")) {  // generation overwrites [SEP]
    const auto& bert = golden.expected["bert_prompt"];
    auto rows = bert["input_ids"].get<std::vector<Ids>>();
    for (size_t i = 0; i < rows.size(); ++i) {
      const Ids mask = bert["attention_mask"][i].get<Ids>();
      rows[i].resize(std::ranges::count(mask, 1) - 1);
    }
    ExpectSequences(rows, bert, driver);
  }
}

// Device and degree.
class GoldenModelTest : public ::testing::TestWithParam<GroupOptions> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNot(GetParam()); !why.empty()) {
      GTEST_SKIP() << why;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(
    Devices, GoldenModelTest,
    ::testing::Values(GroupOptions{.tp_size = 1}, GroupOptions{.tp_size = 2},
                      GroupOptions{.tp_size = 4}, GroupOptions{.device = Device::kCuda},
                      GroupOptions{.device = Device::kCuda, .batch_invariant = false},
                      GroupOptions{.device = Device::kCudaSharded}));

TEST_P(GoldenModelTest, LogitsAndGreedyIdsAreThoseOfTheReference) {
  int cases = 0;
  for (const GoldenCase& golden : CasesWithPrompts()) {
    SCOPED_TRACE(golden.directory);
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(golden.directory));
    if (!CheckTp(config, GetParam().tp_size).ok()) continue;
    ++cases;
    WithGroup(golden.directory, GetParam(), [&](TpGroup& group, const ForwardModel& model) {
      StepDriver driver(&group, model, 1);
      ExpectLogits(golden, &driver);
      ExpectGreedy(golden, &driver);
    });
  }
  EXPECT_GT(cases, 0);
}

TEST_P(GoldenModelTest, PassesOfAFewTokensGiveTheSameNumbers) {
  GroupOptions options = GetParam();
  if (options.tp_size > 1) GTEST_SKIP() << "shown with one rank";
  options.threads = 3;
  options.max_tokens_per_pass = 5;
  for (const GoldenCase& golden : CasesWithPrompts()) {
    SCOPED_TRACE(golden.directory);
    WithGroup(golden.directory, options, [&](TpGroup& group, const ForwardModel& model) {
      StepDriver driver(&group, model, 2);
      ExpectLogits(golden, &driver);
    });
  }
}

}  // namespace
}  // namespace hanlin
